//! House rules of the source that no other tool checks: every crate inherits the workspace's lints, every source
//! file opens with a paragraph on what it is for, and none grows beyond what one can hold in mind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Most lines of a source file, its unit tests not counted.
const MOST_LINES: usize = 400;

/// Checks all rules and names every place where one does not hold.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let mut faults = Vec::new();
    for manifest in workspace::manifests()? {
        if !inherits_lints(&read(&manifest)?) {
            faults.push(format!("{}: does not inherit the workspace's lints", relative(&root, &manifest)));
        }
    }
    let mut sources = Vec::new();
    collect_sources(&root, &mut sources)?;
    sources.sort();
    for source in sources {
        let file = relative(&root, &source);
        let in_tests = source.components().any(|part| part.as_os_str() == "tests");
        faults
            .extend(faults_of(&read(&source)?, in_tests).into_iter().map(|fault| format!("{file}: {fault}")));
    }
    if faults.is_empty() { Ok(()) } else { bail!("house rules that do not hold:\n  {}", faults.join("\n  ")) }
}

/// Whether a manifest has `[lints]` with `workspace = true`.
fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim);
    lines.any(|line| line == "[lints]")
        && lines
            .take_while(|line| !line.starts_with('['))
            .any(|line| line.replace(' ', "") == "workspace=true")
}

fn faults_of(text: &str, in_tests: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.trim_start().starts_with("//!") {
        faults.push(
            "does not open with `//!`: say what the file is for, what it refuses, what always holds"
                .to_owned(),
        );
    }
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    if lines > MOST_LINES && !in_tests {
        faults.push(format!("{lines} lines without its tests, {MOST_LINES} are the most"));
    }
    faults
}

/// All Rust files below a directory but for what was built there.
fn collect_sources(dir: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                collect_sources(&path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::{MOST_LINES, faults_of, inherits_lints};

    #[test]
    fn lints_are_inherited_only_by_the_table_that_says_so() {
        assert!(inherits_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
    }

    #[test]
    fn a_file_without_a_head_or_too_long_is_a_fault_and_its_unit_tests_do_not_count() {
        let long = "//! head\n".to_owned() + &"x\n".repeat(MOST_LINES);
        let tests = "//! head\n#[cfg(test)]\n".to_owned() + &"x\n".repeat(MOST_LINES);
        assert_eq!(faults_of(&long, false).len(), 1);
        assert_eq!(faults_of(&long, true).len(), 0);
        assert_eq!(faults_of(&tests, false).len(), 0);
        assert_eq!(faults_of("fn main() {}\n", false).len(), 1);
    }
}
