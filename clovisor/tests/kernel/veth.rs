//! Finding a pod's interface on the host: each way with the others taken away, and what must not mislead.

use std::time::Instant;

use clovisor::datapath::interface::Orientation;
use clovisor::datapath::veth::{Found, Paths, PodInterfaces, VethError, Wanted};

use crate::netns::test;
use crate::pods::{Pod, Pods, ip_batch};

async fn find(pods: &Pods, wanted: &Wanted<'_>) -> Result<(String, Found, Option<bool>), VethError> {
    let found = PodInterfaces::new(pods.paths.clone()).await.unwrap().find(wanted).await?;
    assert_eq!(found.interface.orientation, Orientation::Host);
    Ok((found.interface.name, found.found, found.has_address))
}

async fn is_found(pods: &Pods, pod: &Pod, found: Found, has_address: Option<bool>) {
    let result = find(pods, &pod.wanted()).await.unwrap();
    assert_eq!(result, (pod.veth.clone(), found, has_address));
}

#[test]
fn each_way_finds_the_pod_with_the_others_taken_away() {
    test("each_way_finds_the_pod_with_the_others_taken_away", &[], |net| async move {
        let pods = Pods::new(&net, 3);
        for pod in &pods.pods {
            is_found(&pods, pod, Found::CniCache, Some(true)).await;
            let no_address = Wanted { addresses: &[], ..pod.wanted() };
            let result = find(&pods, &no_address).await.unwrap();
            assert_eq!(result, (pod.veth.clone(), Found::CniCache, None));
        }
        // A static pod: the cache has another UID than the API.
        let pod = &pods.pods[1];
        let mirror = Wanted { uid: "ffffffff-0000-0000-0000-000000000000", ..pod.wanted() };
        assert_eq!(
            find(&pods, &mirror).await.unwrap(),
            (pod.veth.clone(), Found::CniCacheByName, Some(true))
        );
        // ... and nothing proves that it is it, or it is an earlier pod of this name.
        let other = ["10.88.9.9".parse().unwrap()];
        for addresses in [&[][..], &other] {
            let refused = find(&pods, &Wanted { addresses, ..mirror }).await;
            assert!(matches!(refused, Err(VethError::NotYet { .. })), "{refused:?}");
        }

        pods.forget(pod);
        let file = format!("/run/netns/{}", pod.netns);
        let under = pod.uid.replace('-', "_");
        let cgroups = [
            format!("5:memory:/kubepods/burstable/pod{}/abc\n", pod.uid),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/cri-containerd-a.scope\n"
            ),
        ];
        for (pid, cgroup) in (77..).zip(cgroups) {
            pods.add_process(pid, &cgroup, &file);
            is_found(&pods, pod, Found::Process, Some(true)).await;
            std::fs::remove_dir_all(pods.paths.proc.join(pid.to_string())).unwrap();
        }
        is_found(&pods, pod, Found::Address, Some(true)).await;
        // An address that the pod's namespace does not have, such as a virtual machine's in a pod.
        ip_batch(&pod.netns, "addr flush dev eth0\n");
        let lost = find(&pods, &pod.wanted()).await;
        assert!(matches!(lost, Err(VethError::NotYet { .. })), "{lost:?}");
        ip_batch(&net.host, &format!("route add 10.88.0.0/24 dev {}\n", pods.pods[2].veth));
        let lost = find(&pods, &pod.wanted()).await;
        assert!(matches!(lost, Err(VethError::NotYet { .. })), "a route to more than it: {lost:?}");
        ip_batch(&net.host, &format!("route add {}/32 dev {}\n", pod.address, pod.veth));
        is_found(&pods, pod, Found::Route, Some(false)).await;
    });
}

#[test]
fn what_is_not_there_yet_and_what_never_will_be() {
    test("what_is_not_there_yet_and_what_never_will_be", &[], |net| async move {
        let mut pods = Pods::new(&net, 2);
        // Nothing knows the pod.
        let uid = "ffffffff-0000-0000-0000-000000000000";
        let addresses = ["10.88.3.3".parse().unwrap()];
        let unknown =
            find(&pods, &Wanted { uid, namespace: "default", name: "new", addresses: &addresses }).await;
        let error = unknown.unwrap_err();
        assert!(error.is_worth_waiting() && matches!(error, VethError::NotYet { .. }), "{error}");
        println!("{error}");

        // The cache names a namespace that is not there, or a file that is none.
        let nowhere = pods.pods[0].cached(true).replace(&pods.pods[0].netns, "cv-nowhere");
        pods.write("pods-c-eth0", &nowhere.replace(&pods.pods[0].uid, uid));
        let absent = find(&pods, &Wanted { uid, namespace: "x", name: "new", addresses: &addresses }).await;
        assert!(matches!(absent, Err(VethError::NotYet { .. })), "{absent:?}");
        let directory = pods.paths.cni_cache.parent().unwrap().to_owned();
        std::fs::write(directory.join("cv-nowhere"), "").unwrap();
        let real = std::mem::replace(&mut pods.paths.netns, directory);
        let plain = find(&pods, &Wanted { uid, namespace: "x", name: "new", addresses: &addresses }).await;
        assert!(plain.as_ref().is_err_and(|error| error.to_string().contains("propagation")), "{plain:?}");
        pods.paths.netns = real;

        // No namespaces to open: the addresses in them still tell.
        let blind = Paths { netns: "/nonexistent".into(), ..pods.paths.clone() };
        let found = PodInterfaces::new(blind).await.unwrap().find(&pods.pods[0].wanted()).await.unwrap();
        assert_eq!(
            (found.interface.name.as_str(), found.found),
            (pods.pods[0].veth.as_str(), Found::Address)
        );

        // The pair is gone, the namespace is there.
        ip_batch(&net.host, &format!("link del {}\n", pods.pods[0].veth));
        let gone = find(&pods, &pods.pods[0].wanted()).await.unwrap_err();
        assert!(matches!(gone, VethError::Unsupported { .. }) && !gone.is_worth_waiting(), "{gone}");
        println!("{gone}");
        is_found(&pods, &pods.pods[1], Found::CniCache, Some(true)).await;

        // A process of the pod in our own namespace: hostNetwork.
        pods.forget(&pods.pods[1]);
        let cgroup = format!("0::/kubepods/pod{}/a\n", pods.pods[1].uid);
        pods.add_process(5, &cgroup, "/proc/thread-self/ns/net");
        let host = find(&pods, &pods.pods[1].wanted()).await;
        assert!(matches!(host, Err(VethError::HostNetwork { .. })), "{host:?}");
    });
}

#[test]
fn an_address_never_wins_over_the_uid() {
    test("an_address_never_wins_over_the_uid", &[], |net| async move {
        let pods = Pods::new(&net, 3);
        let [first, second, third] = pods.pods.as_slice() else { unreachable!() };
        // The API still has each one's address for the other.
        let swapped = |pod: &Pod, other: &Pod| (pod.uid.clone(), pod.name.clone(), [other.address]);
        for (pod, other) in [(first, second), (second, first)] {
            let (uid, name, addresses) = swapped(pod, other);
            let wanted = Wanted { uid: &uid, namespace: "default", name: &name, addresses: &addresses };
            let result = find(&pods, &wanted).await.unwrap();
            assert_eq!(result, (pod.veth.clone(), Found::CniCache, Some(false)));
        }
        // A pod is gone, its file stayed, and its address is another pod's now: neither gets the other's.
        let old_uid = "aaaaaaaa-0000-0000-0000-000000000000";
        let stale = third.cached(true).replace(&third.uid, old_uid).replace(&third.netns, "cv-gone");
        pods.write("pods-old-eth0", &stale);
        is_found(&pods, third, Found::CniCache, Some(true)).await;
        let old = find(&pods, &Wanted { uid: old_uid, name: "old", ..third.wanted() }).await;
        assert!(matches!(old, Err(VethError::NotYet { .. })), "{old:?}");
        // The same, with a route to it.
        ip_batch(&net.host, &format!("route add {}/32 dev {}\n", third.address, third.veth));
        let old = find(&pods, &Wanted { uid: old_uid, name: "old", ..third.wanted() }).await;
        assert!(matches!(old, Err(VethError::NotYet { .. })), "{old:?}");
        // A sandbox made anew: two files of one UID, both namespaces live, and the address decides.
        let again = first.cached(true).replace(&first.uid, &third.uid).replace(&first.name, &third.name);
        pods.write("pods-newer-eth0", &again);
        is_found(&pods, third, Found::CniCache, Some(true)).await;
    });
}

#[test]
fn of_several_networks_the_one_with_the_address_is_taken() {
    test("of_several_networks_the_one_with_the_address_is_taken", &[], |net| async move {
        let pods = Pods::new(&net, 1);
        let pod = &pods.pods[0];
        let second =
            format!("link add second type veth peer name net1 netns {}\nlink set second up\n", pod.netns);
        ip_batch(&net.host, &second);
        is_found(&pods, pod, Found::CniCache, Some(true)).await;
        // Without an address: the interface that the cache names, eth0.
        let no_address = Wanted { addresses: &[], ..pod.wanted() };
        assert_eq!(find(&pods, &no_address).await.unwrap().0, pod.veth);
        ip_batch(
            &pod.netns,
            &format!("addr flush dev eth0\nlink set net1 up\naddr add {}/32 dev net1\n", pod.address),
        );
        assert_eq!(find(&pods, &pod.wanted()).await.unwrap().0, "second");
        // The address is on an interface without a pair.
        ip_batch(
            &pod.netns,
            &format!("addr flush dev net1\nlink set lo up\naddr add {}/32 dev lo\n", pod.address),
        );
        let refused = find(&pods, &pod.wanted()).await;
        assert!(matches!(refused, Err(VethError::Unsupported { .. })), "{refused:?}");
    });
}

#[test]
fn three_hundred_pods_are_found_with_one_snapshot() {
    test("three_hundred_pods_are_found_with_one_snapshot", &[], |net| async move {
        let pods = Pods::new(&net, 300);
        let finder = PodInterfaces::new(pods.paths.clone()).await.unwrap();
        for _ in 0..2 {
            let start = Instant::now();
            let mut snapshot = finder.snapshot().await.unwrap();
            let taken = start.elapsed();
            let mut found = 0;
            for pod in &pods.pods {
                let here = snapshot.find(&pod.wanted()).await.unwrap();
                assert_eq!((here.interface.name.as_str(), here.found), (pod.veth.as_str(), Found::CniCache));
                found += 1;
            }
            assert_eq!(found, 300);
            println!("300 pods by the CNI cache: snapshot {taken:?}, all {:?}", start.elapsed());
            // And without the cache, the second time.
            for pod in &pods.pods {
                let _ = std::fs::remove_file(pods.paths.cni_cache.join(pod.cache_file()));
            }
            let start = Instant::now();
            let mut snapshot = finder.snapshot().await.unwrap();
            for pod in &pods.pods {
                let here = snapshot.find(&pod.wanted()).await.unwrap();
                assert_eq!((here.interface.name.as_str(), here.found), (pod.veth.as_str(), Found::Address));
            }
            println!("300 pods by address: {:?}", start.elapsed());
            for pod in &pods.pods {
                pods.write(&pod.cache_file(), &pod.cached(true));
            }
        }
    });
}
