//! Inputs that once broke a law, and all seeds, through their targets without the fuzzing engine.

use std::fs;

use clovisor_fuzz::{TARGETS, folder, seeds};

#[test]
fn regressions() {
    for (name, run) in TARGETS {
        // A target of which nothing was found has no folder.
        let Ok(entries) = fs::read_dir(folder().join("regressions").join(name)) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            eprintln!("{}", path.display());
            run(&fs::read(&path).expect("an input"));
        }
    }
}

#[test]
fn seeds_of_all_targets() {
    let seeds = seeds::all().expect("the captures");
    for (name, run) in TARGETS {
        let of_it: Vec<_> = seeds.iter().filter(|(target, _, _)| *target == name).collect();
        assert!(of_it.len() > 10, "{name} has {} seeds", of_it.len());
        for (_, seed, input) in of_it {
            eprintln!("{name}: {seed}");
            run(input);
        }
    }
}
