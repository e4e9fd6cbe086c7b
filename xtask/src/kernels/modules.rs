//! Which modules a guest needs, and in which order they go in: from what depmod wrote.

use std::collections::{BTreeMap, BTreeSet};

/// What tests make links of. A kernel that lacks one is told about, and goes on without.
pub(super) const WANTED: [&str; 6] = ["veth", "bridge", "ipip", "sit", "ip6_tunnel", "fou"];

/// What there is to insert, and what is nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Files, relative to the directory of `modules.dep`: each after those that it needs.
    pub(super) files: Vec<String>,
    /// Neither a module nor part of the kernel.
    pub(super) missing: Vec<String>,
}

/// What `wanted` takes, by the texts of `modules.dep` and `modules.builtin`.
pub(super) fn choose(wanted: &[&str], dep: &str, builtin: &str) -> Chosen {
    let needs: BTreeMap<&str, Vec<&str>> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (file, needs.split_whitespace().collect()))
        .collect();
    let by_name: BTreeMap<String, &str> = needs.keys().map(|file| (name(file), *file)).collect();
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut chosen = Chosen::default();
    for module in wanted {
        match by_name.get(*module) {
            Some(file) => insert(file, &needs, &mut chosen.files, &mut BTreeSet::new()),
            None if builtin.contains(*module) => {}
            None => chosen.missing.push((*module).to_owned()),
        }
    }
    chosen
}

/// `file` after what it needs. `under_way` ends circles, which depmod refuses to write but a file may hold.
fn insert<'a>(
    file: &'a str,
    needs: &BTreeMap<&'a str, Vec<&'a str>>,
    order: &mut Vec<String>,
    under_way: &mut BTreeSet<&'a str>,
) {
    if order.iter().any(|known| known == file) || !under_way.insert(file) {
        return;
    }
    for needed in needs.get(file).into_iter().flatten() {
        insert(needed, needs, order, under_way);
    }
    order.push(file.to_owned());
}

/// `ip6_tunnel` of `kernel/net/ipv6/ip6_tunnel.ko.xz`; a dash in a file's name is an underscore in a module's.
fn name(file: &str) -> String {
    let last = file.rsplit('/').next().unwrap_or(file);
    last.split('.').next().unwrap_or(last).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz kernel/net/ipv4/ip_tunnel.ko.xz
kernel/net/ipv4/tunnel4.ko.xz:
kernel/net/ipv4/ip_tunnel.ko.xz:
kernel/net/ipv4/fou.ko.xz: kernel/net/ipv4/udp-tunnel.ko.xz kernel/net/ipv4/ip_tunnel.ko.xz
kernel/net/ipv4/udp-tunnel.ko.xz: kernel/net/base.ko.xz
kernel/net/base.ko.xz:
kernel/net/unrelated.ko.xz: kernel/net/base.ko.xz
";

    #[test]
    fn every_module_comes_once_and_after_what_it_needs() {
        let chosen = choose(&["ipip", "fou"], DEP, "");
        assert_eq!(
            chosen.files.iter().map(|file| name(file)).collect::<Vec<_>>(),
            ["tunnel4", "ip_tunnel", "ipip", "base", "udp_tunnel", "fou"]
        );
        assert!(chosen.missing.is_empty());
    }

    #[test]
    fn what_is_part_of_the_kernel_is_not_missing() {
        let chosen = choose(&["veth", "bridge"], DEP, "kernel/drivers/net/veth.ko\n");
        assert_eq!(chosen, Chosen { files: vec![], missing: vec!["bridge".into()] });
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(choose(&["a"], "a.ko: b.ko\nb.ko: a.ko\n", "").files, ["b.ko", "a.ko"]);
    }
}
