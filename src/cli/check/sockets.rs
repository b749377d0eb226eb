//! The sockets that are to be opened: whether they can be, and whether callers can get at them.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use super::{host::writable_directory, report::Report};
use crate::config::{Config, Listen};

pub(super) fn sockets(config: &Config, report: &mut Report) {
    report.section("Sockets");
    for listen in &config.listen {
        match listen {
            Listen::Unix { path, mode } => unix(path, *mode, report),
            Listen::Tcp { address, .. } => port(*address, report),
            Listen::Systemd { name, tls } => {
                report.note(format!(
                    "systemd socket {name}: handed over at the start by a .socket unit with FileDescriptorName={name}"
                ));
                if let Some(path) = packaged(&config.file).filter(|_| tls.is_none()) {
                    handed_over(&path, report);
                }
            }
        }
    }
}

/// Where the packaged .socket unit of this configuration listens, if it is one of those that packages make room for.
fn packaged(config: &Path) -> Option<PathBuf> {
    let beside = config.strip_prefix("/etc/b2binpay-broker").ok()?.parent()?;
    Some(Path::new("/run/b2binpay-broker").join(beside).join("broker.sock"))
}

/// A socket that systemd has opened, or is to open.
fn handed_over(path: &Path, report: &mut Report) {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            report.ok(format!("{shown}: open, with mode {:04o}", found.mode() & 0o777));
            way_to(path, report);
        }
        Ok(_) => report.warning(format!(
            "{shown}: this is no socket, and keeps the packaged .socket unit from making one; remove it"
        )),
        Err(_) => report.note(format!(
            "{shown}: not there; the packaged .socket unit makes it: systemctl start the service, or look at where your unit's \
             ListenStream= is"
        )),
    }
}

/// Whether everybody gets to it.
fn way_to(path: &Path, report: &mut Report) {
    let closed = path
        .ancestors()
        .skip(1)
        .find(|folder| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 == 0));
    if let Some(closed) = closed {
        report.warning(format!(
            "{}: closed to other users: callers can't get at the socket in it; run chmod o+x, unless all of them are of its group",
            closed.display()
        ));
    }
}

fn unix(path: &Path, mode: u32, report: &mut Report) {
    let shown = path.display();
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !writable_directory(directory, "RuntimeDirectory=", report) {
        return;
    }
    way_to(path, report);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => report.error(format!(
            "{shown}: there is something that is no socket; remove it, or choose another path in [[listen]]"
        )),
        Ok(_) if UnixStream::connect(path).is_ok() => report.note(format!(
            "{shown}: a process listens here now; another broker would not start before it ends"
        )),
        Ok(_) | Err(_) => report.ok(format!("{shown}: can be opened, with mode {mode:04o}")),
    }
}

/// Opens the port for a moment, without a caller.
fn port(address: SocketAddr, report: &mut Report) {
    match TcpListener::bind(address).map_err(|error| (error.kind(), error)) {
        Ok(_) => report.ok(format!("{address}: can be opened")),
        Err((ErrorKind::AddrInUse, _)) => report.note(format!(
            "{address}: a process listens here now; if that is not this broker, stop it, or choose another port in [[listen]]"
        )),
        Err((ErrorKind::AddrNotAvailable, _)) => report.error(format!(
            "{address}: this host doesn't have this address; write one that `ip address` shows, or 0.0.0.0 or [::] for all"
        )),
        Err((ErrorKind::PermissionDenied, error)) => report.error(refused(address, &error)),
        Err((_, error)) => report.error(format!("{address}: can't be opened: {error}")),
    }
    if address.port() != 0 && address.port() < 1024 {
        report.warning(format!(
            "{address}: ports below 1024 take CAP_NET_BIND_SERVICE, which the packaged unit gives up; choose one above, or let \
             systemd open it: a .socket unit, and listen.systemd"
        ));
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> String {
    format!("{address}: this user can't open it: {error}; choose a port above 1023")
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::*;
    use crate::cli::output::Look;

    fn said_of(look: impl FnOnce(&mut Report)) -> String {
        let mut report = Report::default();
        report.section("S");
        look(&mut report);
        report.render(Look::PLAIN)
    }

    #[test]
    fn a_socket_of_the_package_is_looked_at_where_its_unit_makes_it() {
        let at = |config: &str| packaged(Path::new(config)).map(|path| path.display().to_string());
        assert_eq!(at("/etc/b2binpay-broker/config.toml").unwrap(), "/run/b2binpay-broker/broker.sock");
        let of_instance = at("/etc/b2binpay-broker/sandbox/config.toml").unwrap();
        assert_eq!(of_instance, "/run/b2binpay-broker/sandbox/broker.sock");
        assert_eq!(at("/srv/config.toml"), None);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        assert!(said_of(|report| handed_over(&path, report)).contains("not there"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        let told = said_of(|report| handed_over(&path, report));
        assert!(told.contains("open, with mode 0") && told.contains("closed to other users"), "{told}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(said_of(|report| handed_over(&path, report)).contains("this is no socket"));
    }

    #[test]
    fn a_port_is_free_or_taken_or_of_another_host() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(said_of(|report| port(address, report)).contains("a process listens here now"));
        drop(taken);
        assert!(said_of(|report| port(address, report)).contains("can be opened"));
        // One for documentation, which no host has.
        let told = said_of(|report| port("192.0.2.1:7443".parse().unwrap(), report));
        assert!(told.contains("this host doesn't have this address"), "{told}");
        let told = said_of(|report| port("127.0.0.1:1023".parse().unwrap(), report));
        assert!(told.contains("CAP_NET_BIND_SERVICE"), "{told}");
    }

    #[test]
    fn a_socket_that_callers_cannot_get_at_is_warned_of_wherever_the_way_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let told = || said_of(|report| unix(&inner.join("broker.sock"), 0o666, report));
        set(folder.path(), 0o750);
        assert!(
            told().contains(&format!("{}: closed to other users", folder.path().display())),
            "{}",
            told()
        );
        set(folder.path(), 0o755);
        assert!(told().ends_with("\n\nok\n"), "{}", told());
        set(&inner, 0o700);
        assert!(told().contains(&format!("{}: closed to other users", inner.display())), "{}", told());
    }
}
