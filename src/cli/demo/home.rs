//! The demo's folder: a configuration and credentials like those of a real installation.

use std::{env, fs, io, os::unix::fs::OpenOptionsExt, path::PathBuf};

use b2binpay_simulator::Simulator;
use nix::unistd::{getuid, mkdtemp};

/// A folder that goes when this does.
pub(super) struct DemoHome {
    folder: PathBuf,
}

impl DemoHome {
    pub(super) fn new(simulator: &Simulator, api: &str) -> io::Result<Self> {
        let folder = mkdtemp(&env::temp_dir().join("b2binpay-broker-demo-XXXXXX"))?;
        let home = Self { folder };
        let settings = simulator.settings();
        fs::create_dir(home.path("state"))?;
        home.write("api-key", &format!("{}\n", settings.credentials.key))?;
        home.write("api-secret", &format!("{}\n", settings.credentials.secret))?;
        home.write("callback-secret", &format!("{}\n", settings.callback_secret))?;
        home.write("config.toml", &home.configuration(api, &simulator.base_url()))?;
        Ok(home)
    }

    fn configuration(&self, api: &str, base_url: &str) -> String {
        let callback_secret = if api == "v3" { "callback_secret_file = \"callback-secret\"\n" } else { "" };
        format!(
            "\
# A real one names environment = \"production\" in place of base_url.
[upstream]
api = \"{api}\"
base_url = \"{base_url}\"

# Secrets never stand here, only the names of their files.
[credentials]
key_file = \"api-key\"
secret_file = \"api-secret\"
{callback_secret}
[state]
directory = \"{folder}/state\"

[[listen]]
unix = \"{folder}/broker.sock\"

# Who may do what. Nobody else may do anything.
[[caller]]
name = \"you\"
unix_user = \"{uid}\"
allow = [\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\", \"VerifySign:message\", \"Health\", \"Reflection\", \"Admin\"]
",
            folder = self.folder.display(),
            uid = getuid(),
        )
    }

    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(name))?;
        io::Write::write_all(&mut file, content.as_bytes())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    pub(super) fn endpoint(&self) -> String {
        format!("unix:{}", self.path("broker.sock").display())
    }
}

impl Drop for DemoHome {
    fn drop(&mut self) {
        // What can't be removed is fake, and in the folder for temporary things.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where this program is, unless its name alone would find it.
pub(super) fn program_off_path() -> Option<PathBuf> {
    let this = env::current_exe().ok()?;
    let found = env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path).any(|folder| this == folder.join(env!("CARGO_PKG_NAME")))
    });
    (!found).then_some(this)
}
