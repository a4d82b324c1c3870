//! Weights of a safetensors file in a backbone: an artifact's own, or those that somebody brings along.

use std::path::Path;

use super::{
    backbone::{Backbone, BackboneConfig, BackboneError},
    state::{StateEntry, StateError, from_safetensors},
};

/// What the networks' names begin with in `simsiam.safetensors`.
const BACKBONE_PREFIX: &str = "backbone.";
/// The classifier that torchvision's ResNets end with, which a backbone has not.
const CLASSIFIER: [&str; 2] = ["fc.weight", "fc.bias"];

/// Why a file is no backbone.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Its tensors cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its tensors are not those of the network, or cannot be used.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
}

/// The network whose weights are the file's `bytes`, exactly; `file` is for messages.
///
/// # Errors
/// Where the bytes are no safetensors file, its tensors are not the network's, or a value cannot be used.
pub fn load_backbone(bytes: &[u8], file: &Path, config: &BackboneConfig) -> Result<Backbone, WeightsError> {
    Ok(Backbone::from_state_dict(config, &from_safetensors(bytes, file)?)?)
}

/// The state of a backbone in weights that were trained elsewhere: torchvision's file of a whole ResNet, without its
/// classifier; `encoder.safetensors` of this program; or the backbone's part of its `simsiam.safetensors`. Batch norms
/// that do not count their batches, as in files from before PyTorch 0.4.1, begin at 0.
///
/// # Errors
/// Where the bytes are no safetensors file of F32 and I64 tensors.
pub fn outside_weights(bytes: &[u8], file: &Path) -> Result<Vec<StateEntry>, StateError> {
    let mut entries = from_safetensors(bytes, file)?;
    if entries.iter().any(|entry| entry.name.starts_with(BACKBONE_PREFIX)) {
        entries.retain(|entry| entry.name.starts_with(BACKBONE_PREFIX));
        for entry in &mut entries {
            entry.name.drain(..BACKBONE_PREFIX.len());
        }
    }
    entries.retain(|entry| !CLASSIFIER.contains(&entry.name.as_str()));
    let counters: Vec<String> = entries
        .iter()
        .filter_map(|entry| Some(format!("{}.num_batches_tracked", entry.name.strip_suffix(".running_mean")?)))
        .filter(|counter| !entries.iter().any(|entry| entry.name == *counter))
        .collect();
    entries.extend(counters.into_iter().map(|name| StateEntry::i64(name, vec![], vec![0])));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{
        backbone::{ResnetConfig, StateData, backbone_config::DarknetTinyConfig},
        state::to_safetensors,
    };

    const TINY: BackboneConfig = BackboneConfig::DarknetTiny(DarknetTinyConfig {});

    fn file() -> &'static Path {
        Path::new("w.safetensors")
    }

    fn bytes(entries: &[StateEntry]) -> Vec<u8> {
        to_safetensors(entries, BTreeMap::new()).unwrap()
    }

    fn adopt(config: BackboneConfig, entries: &[StateEntry]) -> Result<Backbone, WeightsError> {
        Ok(Backbone::from_state_dict(&config, &outside_weights(&bytes(entries), file())?)?)
    }

    #[test]
    fn whole_resnets_and_our_own_files_are_taken() {
        let resnet = BackboneConfig::Resnet18(ResnetConfig::default());
        let trained = Backbone::build(&resnet, 7).unwrap();
        let state = trained.state_dict();
        // As torchvision saves it, and as it did before counters were saved.
        let mut whole = state.clone();
        whole.push(StateEntry::f32("fc.weight", vec![1000, 512], vec![0.1; 512_000]));
        whole.push(StateEntry::f32("fc.bias", vec![1000], vec![0.1; 1000]));
        assert_eq!(adopt(resnet, &whole).unwrap().state_dict(), state);
        whole.retain(|entry| !entry.name.ends_with("num_batches_tracked"));
        assert_eq!(adopt(resnet, &whole).unwrap().state_dict(), state);
        // As `simsiam.safetensors` has it.
        let mut both = state.clone();
        for entry in &mut both {
            entry.name.insert_str(0, "backbone.");
        }
        both.push(StateEntry::f32("projector.0.weight", vec![1], vec![1.0]));
        assert_eq!(adopt(resnet, &both).unwrap().state_dict(), state);
        let exact = load_backbone(&bytes(&state), file(), &resnet).unwrap();
        assert_eq!(exact.state_dict(), state);
    }

    #[test]
    fn weights_of_another_network_say_what_does_not_fit() {
        let state = Backbone::build(&TINY, 7).unwrap().state_dict();
        let error = adopt(BackboneConfig::Resnet18(ResnetConfig::default()), &state).unwrap_err().to_string();
        assert!(error.contains("do not fit `resnet18`: missing `bn1.bias`"), "{error}");
        assert!(error.contains("unexpected `block1.bn1.bias`"), "{error}");

        let mut state = state;
        state[0] = StateEntry::f32(state[0].name.clone(), vec![128, 1, 1, 1], vec![0.0; 128]);
        let error = adopt(TINY, &state).unwrap_err().to_string();
        let expected = "of another shape `stem.conv.weight` (f32 [128, 1, 1, 1] instead of f32 [128, 3, 1, 1])";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut state = Backbone::build(&TINY, 7).unwrap().state_dict();
            if let StateData::F32(values) = &mut state[0].data {
                values[5] = value;
            }
            let error = adopt(TINY, &state).unwrap_err().to_string();
            assert!(error.contains("`stem.conv.weight` holds a value that is not finite"), "{error}");
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let honest = |header: &str, data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(vec![0; data]);
            bytes
        };
        let tensor = |shape: &str, from: u64, to: u64| {
            format!(r#"{{"x":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{from},{to}]}}}}"#)
        };
        assert!(from_safetensors(&honest(&tensor("2,2", 0, 16), 16), file()).is_ok());
        let mut endless = honest(&tensor("2,2", 0, 16), 16);
        endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let lies = [
            honest(&tensor("2,2", 0, 16), 12),
            honest(&tensor("2,2", 0, 16), 20),
            honest(&tensor("2,3", 0, 16), 16),
            honest(&tensor("4294967296,4294967296", 0, 16), 16),
            honest(&tensor("2,2", 16, 0), 16),
            honest(&tensor("2,2", 4, 20), 20),
            honest(&tensor("2,2", 0, u64::MAX), 16),
            honest(r#"{"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 4),
            honest("[]", 0),
            endless,
            vec![],
            b"short".to_vec(),
        ];
        for (idx, bytes) in lies.iter().enumerate() {
            let error = from_safetensors(bytes, file()).expect_err(&format!("lie {idx}")).to_string();
            assert!(error.starts_with("`w.safetensors` is not a readable safetensors file: "), "{error}");
        }
    }
}
