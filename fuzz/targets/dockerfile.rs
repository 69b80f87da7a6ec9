//! Dockerfiles: lines, here-documents, instructions, stages, and the plan made of them.
#![no_main]

use build::language::file::Dockerfile;
use build::language::statement;
use build::{Context, File, Options, Plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((_, statements)) = statement::parse(text) {
        let lines = text.lines().count().max(1);
        let mut last = 0;
        for statement in &statements {
            let span = statement.span;
            assert!(last < span.first && span.first <= span.last && span.last <= lines, "{span:?}");
            last = span.last;
            statement.dump();
        }
    }
    match Dockerfile::parse("Dockerfile", text) {
        Err(diagnostic) => assert!(diagnostic.to_string().starts_with("Dockerfile:")),
        Ok(file) => {
            assert!(!file.stages.is_empty());
            let options = Options::new(File::InContext("Dockerfile".into()), Context::Empty);
            if let Ok(plan) = Plan::new(file, &options) {
                // Stages come in an order they can be done in.
                for stage in &plan.stages {
                    assert!(stage.needs.iter().all(|needed| *needed < stage.index));
                    let there = |needed: &usize| plan.stages.iter().any(|s| s.index == *needed);
                    assert!(stage.needs.iter().all(there));
                }
                let _ = plan.to_string();
            }
        }
    }
});
