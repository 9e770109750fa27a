//! What the BPF maps of a process take of the kernel's memory, by the kernel's own account.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The maps that a process holds, the largest first.
pub(crate) fn of(process: u32) -> Result<Vec<Value>> {
    let folder = format!("/proc/{process}/fdinfo");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot look into {folder}"))?;
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    // A map may be held by several files.
    let sizes: BTreeMap<u32, u64> = texts.filter_map(|text| parse(&text)).collect();
    let names: BTreeMap<u32, String> = aya::maps::loaded_maps()
        .flatten()
        .filter_map(|map| Some((map.id(), map.name_as_str()?.to_owned())))
        .collect();
    let mut maps: Vec<_> = sizes.into_iter().map(|(id, bytes)| (bytes, names.get(&id).cloned())).collect();
    maps.sort_by(|one, other| other.cmp(one));
    Ok(maps
        .into_iter()
        .map(|(bytes, name)| json!({ "name": name.unwrap_or_default(), "bytes": bytes }))
        .collect())
}

/// Number and bytes in a file's information, if it is a map (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
fn parse(text: &str) -> Option<(u32, u64)> {
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some((u32::try_from(of("map_id:")?).ok()?, of("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_map_has_a_number_and_a_program_has_none() {
        let map = "pos:\t0\nmap_type:\t27\nmax_entries:\t8388608\nmemlock:\t8475224\nmap_id:\t7\n";
        assert_eq!(parse(map), Some((7, 8_475_224)));
        assert_eq!(parse("pos:\t0\nprog_type:\t3\nprog_id:\t42\nmemlock:\t4096\n"), None);
    }
}
