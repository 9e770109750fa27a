//! Which rights finding a pod's interface needs, on the host and inside: another process, with user 0 and CAP_NET_ADMIN alone, as in the
//! base DaemonSet (which has BPF and PERFMON besides, not DAC_OVERRIDE, SYS_PTRACE or SYS_ADMIN).

use std::process::Command;

use clovisor::datapath::capability::may_enter;
use clovisor::datapath::veth::{Paths, PodInterfaces, Wanted};

use crate::netns::test;
use crate::pods::Pods;

const CACHE: &str = "CLOVISOR_TEST_CACHE";
const UID: &str = "CLOVISOR_TEST_UID";
const ADDRESS: &str = "CLOVISOR_TEST_ADDRESS";

#[test]
fn net_admin_alone_finds_pods() {
    test("net_admin_alone_finds_pods", &["setpriv"], |net| async move {
        let pods = Pods::new(&net, 2);
        let find = |capabilities: &str| {
            let pod = &pods.pods[1];
            let output = Command::new("setpriv")
                .args(["--bounding-set", capabilities, "--inh-caps", capabilities])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "rights::the_finder", "--ignored", "--nocapture"])
                .env(CACHE, &pods.paths.cni_cache)
                .env(UID, &pod.uid)
                .env(ADDRESS, pod.address.to_string())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("{capabilities}: {text}");
            text
        };
        let veth = &pods.pods[1].veth;
        let net_admin = "-all,+net_admin";
        let refused = find(net_admin);
        assert!(
            refused.contains("inside: cannot enter") && refused.contains("may enter: false"),
            "{refused}"
        );
        // What its netlink connection does there needs NET_ADMIN, too; looking does not.
        assert!(find("-all,+sys_admin").contains("inside: found eth0, may enter: true"));
        assert!(find(net_admin).contains(&format!("found {veth} by the CNI cache, Some(true)")));
        assert!(find("-all").contains(&format!("found {veth} by the CNI cache, None")));
        pods.forget(&pods.pods[1]);
        assert!(find(net_admin).contains(&format!("found {veth} by the address in the pod, Some(true)")));
        assert!(find("-all").contains("(3 could not be asked)"));
    });
}

#[test]
#[ignore = "it is the other process of another test"]
fn the_finder() {
    let Ok(uid) = std::env::var(UID) else { return };
    let addresses = [std::env::var(ADDRESS).unwrap().parse().unwrap()];
    let paths = Paths { cni_cache: std::env::var_os(CACHE).unwrap().into(), ..Paths::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wanted = Wanted { uid: &uid, namespace: "default", name: "web", addresses: &addresses };
        let finder = PodInterfaces::new(paths).await.unwrap();
        match finder.find(&wanted).await {
            Ok(found) => {
                println!("found {} by {}, {:?}", found.interface.name, found.found, found.has_address);
            }
            Err(error) => println!("{error}"),
        }
        match finder.snapshot().await.unwrap().find_inside(&wanted, 7).await {
            Ok(found) => println!("inside: found {}, may enter: {}", found.interface.name, may_enter()),
            Err(error) => println!("inside: {error}, may enter: {}", may_enter()),
        }
    });
}
