//! Quick stages that do what the model says, and somebody who keeps every event.

use std::{fs, sync::Mutex};

use serde_json::Value;

use super::{scenario::Ending, world::result_of};
use crate::{
    compute::Compute,
    runner::{Cancel, RunEvent, RunObserver, StageExecutor, StageJob, event::EventLine},
    stage::{StageConfig, StageContext, StageError, StageOutcome, StageReporter},
};

/// Does what `result_of` says, and fails where it is told to.
pub(super) struct Worker<'a> {
    pub(super) failing: Option<(String, Ending)>,
    pub(super) cancel: &'a Cancel,
    pub(super) executed: Mutex<Vec<String>>,
}

impl StageExecutor for Worker<'_> {
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        self.work(&job.config, &job.context(&Compute::Cpu, reporter))
    }
}

impl Worker<'_> {
    fn work(&self, config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
        let StageConfig::Command(config) = config else { panic!("only commands here") };
        self.executed.lock().unwrap().push(ctx.stage.to_owned());
        ctx.reporter.progress(1, 2, "halves", "");
        let source = config.sources.first().map(|path| fs::read_to_string(ctx.project_root.join(path)).unwrap());
        let parents: Vec<String> =
            ctx.inputs.values().flatten().map(|input| fs::read_to_string(input.dir.join("out")).unwrap()).collect();
        fs::write(ctx.out_dir.join("out"), "half").unwrap();
        match self.failing.as_ref().filter(|(stage, _)| stage == ctx.stage) {
            Some((_, Ending::Error)) => return Err(StageError::Data { message: "no luck".into(), help: None }),
            Some((_, Ending::Panic)) => panic!("meant"),
            Some((_, Ending::Stop)) => {
                self.cancel.set(2);
                return Err(StageError::Cancelled);
            }
            None => {}
        }
        let result = result_of(&config.run[0], ctx.seed, source.as_deref(), &parents);
        fs::write(ctx.out_dir.join("out"), result).unwrap();
        Ok(StageOutcome { metrics: [("x/y".to_owned(), 0.5)].into() })
    }
}

/// Keeps every event as the line that `--json` would write.
#[derive(Default)]
pub(super) struct Recorder(pub(super) Mutex<Vec<Value>>);

impl RunObserver for Recorder {
    fn on_event(&self, event: &RunEvent) {
        self.0.lock().unwrap().push(serde_json::to_value(EventLine::now(event)).unwrap());
    }
}
