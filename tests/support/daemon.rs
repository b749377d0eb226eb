//! The real daemon, as a process of its own.

use std::{
    fmt::Write as _,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use b2binpay_simulator::{Api, Simulator};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::watch,
};

use super::{Caller, RawCaller, Search, soon};

/// What a daemon is started with.
#[derive(Clone)]
pub struct Setup {
    /// Which API; `None`: the one that the simulator serves.
    pub api: Option<&'static str>,
    /// More lines for `[upstream]`.
    pub upstream: String,
    /// More lines for `[upstream.budget]`. By default so generous that no test waits for it.
    pub budget: String,
    /// More of the configuration, from `[token]` on.
    pub rest: String,
    /// The `allow` of the caller `tests`, which is whoever runs them.
    pub allow: Vec<&'static str>,
    /// Where it listens, in place of its own socket.
    pub listen: Option<String>,
    /// The callers, in place of `tests`.
    pub callers: Option<String>,
    /// Where the upstream is, in place of the simulator.
    pub base_url: Option<String>,
    /// Whether v3's callback secret is configured.
    pub callback_secret: bool,
    /// The state directory, in place of one of its own.
    pub state: Option<PathBuf>,
    /// The least important lines of the log.
    pub log_level: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            api: None,
            upstream: String::new(),
            budget: "requests = 1000\nwindow = \"1s\"".into(),
            rest: String::new(),
            allow: vec![
                "GetAccessToken",
                "WatchAccessToken",
                "VerifySign",
                "VerifySign:message",
                "Health",
                "Reflection",
                "Admin",
            ],
            listen: None,
            callers: None,
            base_url: None,
            callback_secret: true,
            state: None,
            log_level: "trace",
        }
    }
}

/// A folder with everything that a daemon needs, which outlives the daemon.
pub struct Home {
    folder: Arc<TempDir>,
    /// All that was ever written into its files of secrets.
    secrets: Mutex<Vec<String>>,
}

impl Home {
    /// Writes the configuration and the credentials for a daemon against `simulator`.
    pub fn new(simulator: &Simulator, setup: &Setup) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let home = Self { folder, secrets: Mutex::default() };
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))
            .expect("the folder's mode is set");
        fs::create_dir(home.path().join("state")).expect("the state directory is made");
        home.write_credentials(simulator);
        home.configure(simulator, setup);
        home
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("config.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("broker.sock")
    }

    /// The file in which the daemon records its calls.
    pub fn record(&self) -> PathBuf {
        self.in_state_directory("calls-").expect("a record is there")
    }

    /// The lockdown flag, if there is one.
    pub fn lockdown_flag(&self) -> Option<PathBuf> {
        self.in_state_directory("lockdown-")
    }

    fn in_state_directory(&self, beginning: &str) -> Option<PathBuf> {
        let files = fs::read_dir(self.path().join("state")).expect("the state directory is there");
        let mut files = files.map(|file| file.expect("it can be read"));
        files.find(|file| file.file_name().to_string_lossy().starts_with(beginning)).map(|file| file.path())
    }

    /// Writes the credentials that the simulator accepts now.
    pub fn write_credentials(&self, simulator: &Simulator) {
        let settings = simulator.settings();
        self.write_secret("api-key", &settings.credentials.key);
        self.write_secret("api-secret", &settings.credentials.secret);
        self.write_secret("callback-secret", &settings.callback_secret);
    }

    pub fn write_secret(&self, name: &str, content: &str) {
        self.secrets.lock().expect("nobody panics here").push(content.to_owned());
        let path = self.path().join(name);
        fs::write(&path, format!("{content}\n")).expect("the secret is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
    }

    /// Writes the configuration of this setup.
    pub fn configure(&self, simulator: &Simulator, setup: &Setup) {
        let api = setup.api.unwrap_or(match simulator.settings().api {
            Api::V2 => "v2",
            Api::V3 | Api::Both => "v3",
        });
        let callback_secret = if api == "v3" && setup.callback_secret {
            "callback_secret_file = \"callback-secret\""
        } else {
            ""
        };
        let state = setup.state.clone().unwrap_or_else(|| self.path().join("state"));
        let base_url = setup.base_url.clone().unwrap_or_else(|| simulator.base_url());
        let mut text = format!(
            "[upstream]\napi = \"{api}\"\nbase_url = \"{base_url}\"\n{upstream}\n\
             [upstream.budget]\n{budget}\n\
             [credentials]\nkey_file = \"api-key\"\nsecret_file = \"api-secret\"\n{callback_secret}\n\
             [state]\ndirectory = \"{state}\"\n\
             [[listen]]\n{listen}\n\
             [log]\nformat = \"json\"\nlevel = \"{level}\"\n{rest}\n",
            upstream = setup.upstream,
            budget = setup.budget,
            state = state.display(),
            level = setup.log_level,
            listen =
                setup.listen.clone().unwrap_or_else(|| format!("unix = \"{}\"", self.socket().display())),
            rest = setup.rest,
        );
        let uid = nix::unistd::getuid();
        let callers = setup.callers.clone().unwrap_or_else(|| {
            format!("[[caller]]\nname = \"tests\"\nunix_user = \"{uid}\"\nallow = {:?}\n", setup.allow)
        });
        let _ = write!(text, "{callers}");
        fs::write(self.config(), text).expect("the configuration is written");
    }
}

/// A running daemon. Killed when it is dropped.
pub struct Daemon {
    pub home: Home,
    child: Child,
    log: watch::Receiver<String>,
}

impl Daemon {
    /// Starts one against `simulator`, and returns when its socket is open.
    pub async fn start(simulator: &Simulator, setup: Setup) -> Self {
        Self::start_in(Home::new(simulator, &setup)).await
    }

    /// Starts one in a folder that may have been used before.
    pub async fn start_in(home: Home) -> Self {
        let daemon = Self::spawn(home);
        daemon.logged("\"serving\"").await;
        daemon
    }

    /// Starts one without waiting for anything.
    pub fn spawn(home: Home) -> Self {
        Self::spawn_by(home, clean(env!("CARGO_BIN_EXE_b2binpay-broker")))
    }

    /// Starts one that may have no more than this many files open.
    pub fn spawn_with_few_files(home: Home, files: u32) -> Self {
        let mut shell = clean("/bin/sh");
        shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""));
        shell.arg(env!("CARGO_BIN_EXE_b2binpay-broker"));
        Self::spawn_by(home, shell)
    }

    /// Starts one whose files may be no longer than this many bytes, which is what a full disk looks like to it.
    pub fn spawn_with_file_limit(home: Home, bytes: usize) -> Self {
        let mut shell = clean("/bin/sh");
        // In blocks of 512 bytes, by POSIX.
        shell.arg("-c").arg(format!("ulimit -f {} && exec \"$0\" \"$@\"", bytes / 512));
        shell.arg(env!("CARGO_BIN_EXE_b2binpay-broker"));
        Self::spawn_by(home, shell)
    }

    /// Starts one that is this user's, as are its files.
    pub fn spawn_as(home: Home, uid: u32) -> Self {
        give(home.path(), uid);
        let mut command = clean(env!("CARGO_BIN_EXE_b2binpay-broker"));
        command.uid(uid).gid(uid);
        Self::spawn_by(home, command)
    }

    /// Starts one that another program watches over.
    pub fn spawn_under(home: Home, program: &str, arguments: &[&str]) -> Self {
        let mut command = clean(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_b2binpay-broker"));
        Self::spawn_by(home, command)
    }

    /// Starts one that reports to the service manager behind `notify`, and to which that hands over `socket`, if any, under
    /// this name.
    pub fn spawn_supervised(
        home: Home,
        notify: &Path,
        watchdog: Duration,
        socket: Option<(&str, OwnedFd)>,
    ) -> Self {
        let mut shell = clean("/bin/sh");
        // The first that is handed over is descriptor 3; and the pid stays what it is.
        let exec = match socket {
            Some(_) => "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null",
            None => "exec \"$0\" \"$@\"",
        };
        shell.arg("-c").arg(exec).arg(env!("CARGO_BIN_EXE_b2binpay-broker"));
        shell.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let stdin = socket.map_or_else(Stdio::null, |(name, socket)| {
            shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
            socket.into()
        });
        Self::spawn_with(home, shell, stdin)
    }

    fn spawn_by(home: Home, command: Command) -> Self {
        Self::spawn_with(home, command, Stdio::null())
    }

    fn spawn_with(home: Home, mut command: Command, stdin: Stdio) -> Self {
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(home.config())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the daemon starts");
        let log = collect(child.stderr.take().expect("stderr is piped"));
        Self { home, child, log }
    }

    /// A connection of whoever runs the tests.
    pub fn caller(&self) -> Caller {
        Caller::to(&self.home.socket())
    }

    /// The same without manners.
    pub async fn raw_caller(&self) -> RawCaller {
        RawCaller::over(self.peer().await).await
    }

    /// A connection on which nothing was said yet.
    pub async fn peer(&self) -> UnixStream {
        UnixStream::connect(self.home.socket()).await.expect("the socket is open")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it has logged this.
    pub async fn logged(&self, text: &str) {
        self.logged_so_that(&format!("the log says {text:?}"), |log| log.contains(text)).await;
    }

    /// Waits until its log is so.
    pub async fn logged_so_that(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let mut log = self.log.clone();
        let waited = soon(what, log.wait_for(|log| holds(log))).await;
        assert!(waited.is_ok(), "the daemon ended, and never so that {what}:\n{}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("the signal is sent");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon("the daemon ends", self.child.wait()).await.expect("its status is known")
    }

    /// Kills it as hard as can be, and gives its folder back.
    pub async fn kill(mut self) -> Home {
        self.signal(Signal::SIGKILL);
        self.ended().await;
        self.leave()
    }

    /// Gives the folder of a daemon back that has ended.
    pub fn leave(self) -> Home {
        let folder = Arc::clone(&self.home.folder);
        let secrets = Mutex::new(self.home.secrets.lock().expect("nobody panics here").clone());
        Home { folder, secrets }
    }
}

/// A program that finds nothing in its environment.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command
}

/// Gives a folder and all in it to another user.
fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("root gives it away");
    for entry in fs::read_dir(path).into_iter().flatten() {
        give(&entry.expect("it can be read").path(), uid);
    }
}

/// Whatever a test is about: nothing secret may stand in what its daemon wrote, which is all that it can write.
impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.log();
        let secrets = self.home.secrets.lock().expect("nobody panics here");
        // A short one is a word that a test wrote in a secret's place, and may be anybody's.
        let search = Search::of(secrets.iter().map(String::as_str).filter(|secret| secret.len() >= 12));
        assert_eq!(search.found_in(&log), [""; 0], "a secret in the log:\n{log}");
        // All tokens of the simulator begin so.
        assert!(!log.contains("eyJ"), "a token in the log:\n{log}");
    }
}

/// Gathers lines as they come; the sender is gone when the stream has ended.
fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    });
    receiver
}
