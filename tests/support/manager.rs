//! What stands in systemd's place: a socket that hears what a service tells its manager.

use std::path::PathBuf;

use tokio::net::UnixDatagram;

use super::{Home, soon};

/// The service manager's end.
pub struct Manager {
    socket: UnixDatagram,
    pub heard: Vec<String>,
}

impl Manager {
    /// One beside the daemon of this home, and the path at which it listens.
    pub fn in_place_of_systemd(home: &Home) -> (Self, PathBuf) {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Self { socket, heard: Vec::new() }, path)
    }

    /// Waits until it hears a line that begins so.
    pub async fn hears(&mut self, beginning: &str) -> String {
        let hearing = async {
            loop {
                let mut packet = vec![0; 4096];
                let length = self.socket.recv(&mut packet).await.unwrap();
                let text = String::from_utf8_lossy(&packet[..length]).into_owned();
                self.heard.extend(text.lines().map(str::to_owned));
                if let Some(line) = text.lines().find(|line| line.starts_with(beginning)) {
                    return line.to_owned();
                }
            }
        };
        soon(&format!("the notice {beginning:?}"), hearing).await
    }

    pub fn has_heard(&self, line: &str) -> bool {
        self.heard.iter().any(|heard| heard == line)
    }
}
