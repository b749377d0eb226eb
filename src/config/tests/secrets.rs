//! Files of secrets.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::*;
use crate::{
    credentials::ApiVersion,
    secret::{ExposeSecret, SecretString},
};

/// Files of secrets: those of the supervisor in one folder, the configuration and its own in another.
struct Files {
    _root: tempfile::TempDir,
    supervisor: PathBuf,
    folder: PathBuf,
}

impl Files {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [supervisor, folder] = ["supervisor", "folder"].map(|name| root.path().join(name));
        fs::create_dir(&supervisor).unwrap();
        fs::create_dir(&folder).unwrap();
        Self { _root: root, supervisor, folder }
    }

    /// With a key and a secret beside the configuration.
    fn minimal() -> Self {
        let files = Self::new();
        files.write("key", "the key\n");
        files.write("secret", "the secret");
        files
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn environment(&self) -> Environment {
        Environment { credentials_directory: Some(self.supervisor.clone()) }
    }

    fn read(&self, text: &str) -> Result<LoadedCredentials, CredentialErrors> {
        let config = Config::parse_for(text, &self.folder.join("config.toml"), &Host).unwrap();
        config.read_credentials(&self.environment(), "2026-06-01T00:00:00Z".parse().unwrap())
    }

    /// What is said of files that can't be used, with short names for the folders.
    fn errors(&self, text: &str) -> Vec<String> {
        self.short(&self.read(text).unwrap_err()).lines().map(str::to_owned).collect()
    }

    fn short(&self, text: &impl ToString) -> String {
        let folders = [(&self.supervisor, "SUPERVISOR"), (&self.folder, "FOLDER")];
        folders
            .iter()
            .fold(text.to_string(), |text, (folder, name)| text.replace(&folder.display().to_string(), name))
    }
}

fn shown(secret: &SecretString) -> &str {
    secret.expose_secret()
}

#[test]
fn secrets_are_read_from_beside_the_configuration() {
    let files = Files::minimal();
    let loaded = files.read(MINIMAL).unwrap();
    assert_eq!(loaded.credentials.api, ApiVersion::V2);
    assert_eq!(shown(&loaded.credentials.key), "the key");
    assert_eq!(shown(&loaded.credentials.secret), "the secret");
    assert!(loaded.credentials.callback_secret.is_none());
    assert!(loaded.previous.is_none());
    assert_eq!(loaded.warnings, []);
    let sources: Vec<_> =
        loaded.sources.iter().map(|source| (source.name, files.short(&source.path.display()))).collect();
    assert_eq!(sources, [("key_file", "FOLDER/key".to_owned()), ("secret_file", "FOLDER/secret".to_owned())]);
    let written = fs::metadata(files.folder.join("key")).unwrap().modified().unwrap();
    assert_eq!(loaded.sources[0].modified, Some(Timestamp::try_from(written).unwrap()));
}

#[test]
fn the_supervisor_s_credentials_come_first_but_only_under_plain_names() {
    let files = Files::minimal();
    fs::write(files.supervisor.join("key"), "kept").unwrap();
    fs::set_permissions(files.supervisor.join("key"), fs::Permissions::from_mode(0o444)).unwrap();
    let loaded = files.read(MINIMAL).unwrap();
    assert_eq!(shown(&loaded.credentials.key), "kept");
    assert_eq!(shown(&loaded.credentials.secret), "the secret");
    assert_eq!(loaded.warnings, [], "the supervisor's modes are its own business");

    let absolute = files.folder.join("key").display().to_string();
    for name in ["./key", &absolute] {
        let loaded = files.read(&MINIMAL.replace("\"key\"", &format!("\"{name}\""))).unwrap();
        assert_eq!(shown(&loaded.credentials.key), "the key", "{name}");
    }
}

#[test]
fn a_file_that_others_can_get_at_is_warned_of() {
    for mode in [0o644, 0o604, 0o620, 0o666] {
        let files = Files::minimal();
        fs::set_permissions(files.folder.join("secret"), fs::Permissions::from_mode(mode)).unwrap();
        let warnings = files.read(MINIMAL).unwrap().warnings;
        assert_eq!(
            warnings.iter().map(|warning| files.short(warning)).collect::<Vec<_>>(),
            [format!(
                "line 6:15: credentials.secret_file (FOLDER/secret): others than the owner can get at the file, its mode is \
                 {mode:04o}; run chmod 600, or chmod 640 where its group is the broker's alone"
            )]
        );
    }
}

#[test]
fn one_final_line_break_is_not_part_of_a_secret() {
    for content in ["pass word", "pass word\n", "pass word\r\n"] {
        let files = Files::minimal();
        assert_eq!(
            shown(&files.write("secret", content).read(MINIMAL).unwrap().credentials.secret),
            "pass word"
        );
    }
    let longest = "x".repeat(8191) + "\n";
    assert!(Files::minimal().write("secret", longest).read(MINIMAL).is_ok());
}

#[test]
fn what_can_be_no_secret_is_told_without_showing_it() {
    let secret = format!("{PLANTED}-ü");
    for (content, told) in [
        (String::new().into_bytes(), "the file is empty"),
        (b"\n".to_vec(), "the file is empty"),
        (
            format!("{secret}\n\n").into(),
            "the secret has white space before or after it; one final line break is stripped, remove the rest",
        ),
        (
            format!("{secret} ").into(),
            "the secret has white space before or after it; one final line break is stripped, remove the rest",
        ),
        (
            format!(" {secret}").into(),
            "the secret has white space before or after it; one final line break is stripped, remove the rest",
        ),
        (
            format!("{secret}\r").into(),
            "the secret has white space before or after it; one final line break is stripped, remove the rest",
        ),
        (
            format!("\u{a0}{secret}").into(),
            "the secret has white space before or after it; one final line break is stripped, remove the rest",
        ),
        (
            format!("\u{feff}{secret}").into(),
            "the file begins with a byte order mark; save it as UTF-8 without one",
        ),
        (
            format!("{secret}\n{secret}").into(),
            "the secret has a line break or another control character inside; the file must hold it alone, on one line",
        ),
        (
            format!("{secret}\0{secret}").into(),
            "the secret has a line break or another control character inside; the file must hold it alone, on one line",
        ),
        ([secret.as_bytes(), b"\xFF"].concat(), "the file is not UTF-8 text"),
        (secret.repeat(1000).into(), "the file is longer than 8192 bytes: it can't be the secret"),
    ] {
        let files = Files::minimal();
        files.write("secret", content);
        let error = files.read(MINIMAL).unwrap_err();
        assert!(!format!("{error:?}").contains("Pl4nted"));
        assert_eq!(
            files.short(&error),
            format!("FOLDER/config.toml:6:15: credentials.secret_file (FOLDER/secret): {told}")
        );
    }
}

#[test]
fn all_files_that_cannot_be_read_are_told_in_one_go() {
    let files = Files::new();
    fs::create_dir(files.folder.join("secret")).unwrap();
    assert_eq!(
        files.errors(MINIMAL),
        [
            "FOLDER/config.toml:5:12: credentials.key_file: there is no such file in SUPERVISOR or FOLDER; write the name of the \
             file that holds the secret, never the secret itself",
            "FOLDER/config.toml:6:15: credentials.secret_file (FOLDER/secret): this is not a regular file",
        ]
    );
}

#[test]
fn a_pipe_is_refused_and_not_waited_on() {
    let files = Files::minimal();
    fs::remove_file(files.folder.join("key")).unwrap();
    nix::unistd::mkfifo(&files.folder.join("key"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(
        files.errors(MINIMAL),
        ["FOLDER/config.toml:5:12: credentials.key_file (FOLDER/key): this is not a regular file"]
    );
}

#[test]
fn a_secret_in_place_of_its_file_s_name_is_not_repeated() {
    let files = Files::new();
    for name in [PLANTED.to_owned(), format!("/{PLANTED}"), format!("a/{PLANTED}"), PLANTED.repeat(400)] {
        let error = files.read(&MINIMAL.replace("\"key\"", &format!("\"{name}\""))).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains("Pl4nted"), "{told}");
    }
}

#[test]
fn previous_credentials_are_read_until_their_end_and_not_after_it() {
    let previous = |until: &str| {
        format!(
            "{MINIMAL}[credentials.previous]\napi = \"v3\"\nkey_file = \"old-key\"\nsecret_file = \"old-secret\"\ncallback_secret_file = \"old-callback\"\nuntil = {until}\n"
        )
    };
    let files = Files::minimal();
    assert_eq!(files.errors(&previous("2026-06-01T00:00:01Z")).len(), 3, "all three are missing");

    let loaded = files.read(&previous("2026-06-01T00:00:00Z")).unwrap();
    assert!(loaded.previous.is_none());
    assert_eq!(
        loaded.warnings[0].to_string(),
        "line 7:1: [credentials.previous] ended at 2026-06-01T00:00:00Z: delete its files and take the section out"
    );

    files.write("old-key", "a").write("old-secret", "b").write("old-callback", "c");
    let (old, until) = files.read(&previous("2026-06-01T00:00:01Z")).unwrap().previous.unwrap();
    assert_eq!(until, "2026-06-01T00:00:01Z".parse().unwrap());
    assert_eq!(old.api, ApiVersion::V3);
    assert_eq!([&old.key, &old.secret, &old.callback_secret.unwrap()].map(shown), ["a", "b", "c"]);
}
