//! From a process's control groups to its systemd unit.
//!
//! systemd puts each unit's processes into a control group that has the unit's name, below those of its slices. Which
//! hierarchy it uses for that depends on the host: the unified one (v2), its own named one (v1), or both, alike (hybrid).
//! `cg_pid_get_unit` in systemd asks the mounts which it is. Here the file itself must tell, since the broker's own mounts
//! may be a sandbox's: where there is a hierarchy `name=systemd`, systemd uses it, and it alone or the unified one as
//! well. So that line names the unit, and the unified one, where anybody uses it, must name the same.

use crate::caller::SystemdUnit;

/// Why no unit can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoUnit {
    /// No hierarchy that systemd uses.
    #[error("none of its control groups is systemd's")]
    NoHierarchy,
    /// Both hierarchies are in use, for different things: this is no systemd's doing.
    #[error("its control groups contradict each other")]
    Contradiction,
    /// A session, a container, a user's own manager, another namespace.
    #[error("its control group is no system service's")]
    NoService,
}

/// The unit of the process whose `/proc/PID/cgroup` this is.
pub(super) fn unit(cgroup: &str) -> Result<SystemdUnit, NoUnit> {
    // Each line is `number:controllers:path`, and a path may hold further colons.
    let hierarchy = |number: Option<&str>, controllers: &str| {
        cgroup.lines().find_map(|line| {
            let (its_number, rest) = line.split_once(':')?;
            let (its_controllers, path) = rest.split_once(':')?;
            let fits = its_controllers == controllers && number.is_none_or(|number| number == its_number);
            fits.then_some(path)
        })
    };
    let unified = hierarchy(Some("0"), "");
    match (hierarchy(None, "name=systemd"), unified) {
        (Some(named), None | Some("/")) => unit_of_path(named),
        (Some(named), Some(unified)) => {
            let unit = unit_of_path(named)?;
            if unit_of_path(unified).as_ref() == Ok(&unit) { Ok(unit) } else { Err(NoUnit::Contradiction) }
        }
        (None, Some(unified)) => unit_of_path(unified),
        (None, None) => Err(NoUnit::NoHierarchy),
    }
}

/// The first component that is no slice, if it is a service's. What lies below is the service's own affair, and what lies
/// below anything else is somebody else's.
fn unit_of_path(path: &str) -> Result<SystemdUnit, NoUnit> {
    let first = path
        .split('/')
        .filter(|component| !component.is_empty())
        .map(unescaped)
        .find(|component| !is_slice(component))
        .ok_or(NoUnit::NoService)?;
    first.parse().map_err(|_| NoUnit::NoService)
}

/// systemd puts an underscore before a name that the kernel could take for a file of its own.
fn unescaped(component: &str) -> &str {
    component.strip_prefix('_').unwrap_or(component)
}

fn is_slice(component: &str) -> bool {
    component.strip_suffix(".slice").is_some_and(|stem| {
        !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.\\-".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cgroup: &str) -> Result<String, NoUnit> {
        unit(cgroup).map(|unit| unit.to_string())
    }

    const PAYOUTS: &str = "payouts.service";

    #[test]
    fn a_service_is_told_in_every_layout() {
        for cgroup in [
            // Debian 12, Fedora: the unified hierarchy alone.
            "0::/system.slice/payouts.service\n",
            // A service that divides its own processes.
            "0::/system.slice/payouts.service/workers/1\n",
            "0::/money.slice/money-out.slice/payouts.service",
            // At the root, where an operator says Slice=-.slice.
            "0::/payouts.service\n",
            // v1: systemd's own hierarchy, and controllers that are as they like.
            "3:cpu,cpuacct:/\n2:pids:/system.slice/other.service\n1:name=systemd:/system.slice/payouts.service\n",
            // v1 on a host where the unified hierarchy is mounted and unused.
            "1:name=systemd:/system.slice/payouts.service\n0::/\n",
            // Hybrid: both, alike.
            "1:name=systemd:/system.slice/payouts.service\n0::/system.slice/payouts.service\n",
            // Names that look like the kernel's files are escaped.
            "0::/system.slice/_payouts.service\n",
            "0::/_money.slice/payouts.service\n",
        ] {
            assert_eq!(told(cgroup).as_deref(), Ok(PAYOUTS), "{cgroup}");
        }
        assert_eq!(
            told("0::/system.slice/system-worker.slice/worker@7.service").unwrap(),
            "worker@7.service"
        );
        assert_eq!(told("0::/a.slice/dev-a:b\\x2dc.service").unwrap(), "dev-a:b\\x2dc.service");
    }

    #[test]
    fn what_a_user_or_a_container_runs_is_no_service_of_the_system() {
        for cgroup in [
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/payouts.service\n",
            "0::/user.slice/user-1000.slice/user@1000.service/payouts.service\n",
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "1:name=systemd:/user.slice/user-1000.slice/user@1000.service/payouts.service\n",
            "0::/init.scope\n",
            "0::/system.slice/docker-0123456789ab.scope/system.slice/payouts.service\n",
            "0::/docker/0123456789ab/system.slice/payouts.service\n",
            "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope/payouts.service\n",
            "0::/kubepods/besteffort/pod1/payouts.service\n",
            "0::/machine.slice/machine-web.scope/payload/system.slice/payouts.service\n",
            "0::/../../system.slice/payouts.service\n",
            "0::/system.slice/../payouts.service\n",
            "0::/system.slice/payouts.service (deleted)\n",
            "0::/system.slice/payouts.socket\n",
            "0::/system.slice\n",
            "0::/.slice/payouts.service\n",
            "0::/a b.slice/payouts.service\n",
            "0::/__money.slice.d/payouts.service\n",
            "0::/\n",
            "0::\n",
        ] {
            assert_eq!(told(cgroup), Err(NoUnit::NoService), "{cgroup}");
        }
    }

    #[test]
    fn a_container_that_is_a_service_is_that_service_whatever_runs_in_it() {
        let inside = "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/payouts.service\n";
        assert_eq!(told(inside).unwrap(), "systemd-nspawn@web.service");
    }

    #[test]
    fn hierarchies_that_are_not_systemds_say_nothing() {
        for cgroup in [
            "",
            "\n",
            "garbage",
            "1:cpu:/system.slice/payouts.service\n",
            "2::/system.slice/payouts.service\n",
            "1:name=openrc:/payouts.service\n",
            "1:cpu,name=systemd:/payouts.service\n",
        ] {
            assert_eq!(told(cgroup), Err(NoUnit::NoHierarchy), "{cgroup:?}");
        }
        for unified in ["/system.slice/other.service", "/docker/0123"] {
            let cgroup = format!("1:name=systemd:/system.slice/payouts.service\n0::{unified}\n");
            assert_eq!(told(&cgroup), Err(NoUnit::Contradiction), "{cgroup}");
        }
    }
}
