//! How numbers are stored and multiplied on a GPU.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What activations and their gradients are stored as and what convolutions and linear layers multiply. Trained values,
/// their gradients, statistics and all sums are f32 or f64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32, multiplied as such.
    F32,
    /// f32, multiplied by tensor cores with ten bits of fraction.
    Tf32,
    /// bfloat16, multiplied by tensor cores.
    #[default]
    Bf16,
    /// Half precision, multiplied by tensor cores; the loss is scaled so that gradients do not vanish.
    F16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::F16];

    /// As it is written in a pipeline.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// `PRECISION` of the kernels.
    pub fn number(self) -> usize {
        self as usize
    }

    /// Bytes of an activation.
    pub fn element_bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Elements in the 16 bytes that a thread moves at once.
    pub fn vector(self) -> usize {
        16 / self.element_bytes()
    }

    /// Whether weights are multiplied in another type than they are trained in.
    pub fn is_half_width(self) -> bool {
        self.element_bytes() == 2
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|precision| precision.name() == text);
        known.ok_or_else(|| format!("`{text}` is no precision: write `f32`, `tf32`, `bf16` or `f16`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse(), Ok(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
        }
        assert!("fp16".parse::<Precision>().is_err());
    }
}
