//! What comes from variables, what from files, and that no secret is shown.

use super::*;

/// A home with files in it, and the variables of a process.
struct Desk {
    home: tempfile::TempDir,
    variables: BTreeMap<OsString, OsString>,
}

impl Desk {
    fn new(variables: &[(&str, &str)]) -> Desk {
        let home = tempfile::tempdir().expect("a temporary directory");
        let pairs = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let mut variables: BTreeMap<OsString, OsString> = pairs.collect();
        variables.insert("HOME".into(), home.path().into());
        Desk { home, variables }
    }

    fn file(&self, name: &str, text: &str) -> &Desk {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
        self
    }

    fn attach(&self, url: &str) -> Result<String> {
        let location = StoreVariables::of(&self.variables).attach(url.parse()?)?;
        Ok(format!("{location:?}"))
    }

    /// Which settings the location has got.
    fn names(&self, url: &str) -> Vec<String> {
        let shown = self.attach(url).expect("settings");
        let (_, list) = shown.split_once('[').expect("a list");
        let names = list.split('"').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }
}

const CREDENTIALS: &str = "# comment\n[default]\naws_access_key_id = DEFAULT\n\
    aws_secret_access_key=hunter2\n\n[other]\naws_access_key_id = OTHER\n\
    aws_secret_access_key = hunter3\naws_session_token = hunter4\n";
const CONFIG: &str = "[default]\nregion = eu-central-1\ns3 =\n  max_concurrent_requests = 20\n\
    [profile other]\nregion = eu-west-1\nendpoint_url = https://s3.example\n\
    [sso-session x]\nsso_region = eu-west-1\n";

#[test]
fn variables_reach_the_store_that_takes_them() {
    let desk = Desk::new(&[
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_PAGER", "less"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_BUCKET", "elsewhere"),
        ("AZURE_STORAGE_ACCOUNT", "b"),
        ("AZURE_STORAGE_KEY", "hunter2"),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", "hunter2"),
    ]);
    assert_eq!(desk.names("s3://b"), ["aws_access_key_id", "aws_secret_access_key"]);
    let azure = ["azure_storage_account_key", "azure_storage_account_name"];
    assert_eq!(desk.names("az://b"), azure);
    assert_eq!(desk.names("gs://b"), ["google_service_account_key"]);
    assert_eq!(desk.attach("/srv/vault").expect("a path"), "Local(\"/srv/vault\")");
    assert!(!format!("{:?}", StoreVariables::of(&desk.variables)).contains("hunter2"));
}

#[test]
fn a_profile_gives_what_the_variables_do_not() {
    let desk = Desk::new(&[]);
    desk.file(".aws/credentials", CREDENTIALS).file(".aws/config", CONFIG);
    let found = ["aws_access_key_id", "aws_region", "aws_secret_access_key"];
    assert_eq!(desk.names("s3://b"), found);

    let desk = Desk::new(&[("AWS_PROFILE", "other")]);
    desk.file(".aws/credentials", CREDENTIALS).file(".aws/config", CONFIG);
    let found = [
        "aws_access_key_id",
        "aws_endpoint_url",
        "aws_region",
        "aws_secret_access_key",
        "aws_session_token",
    ];
    assert_eq!(desk.names("s3://b"), found);

    // A key of one place with the token of another would open nothing.
    let desk = Desk::new(&[
        ("AWS_PROFILE", "other"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ]);
    desk.file(".aws/credentials", CREDENTIALS);
    assert_eq!(desk.names("s3://b"), ["aws_access_key_id", "aws_secret_access_key"]);
}

#[test]
fn files_elsewhere_are_read_where_variables_name_them() {
    let mut desk = Desk::new(&[("AWS_PROFILE", "other")]);
    desk.file("keys", CREDENTIALS).file("config", CONFIG);
    for (name, file) in [("AWS_SHARED_CREDENTIALS_FILE", "keys"), ("AWS_CONFIG_FILE", "config")] {
        desk.variables.insert(name.into(), desk.home.path().join(file).into());
    }
    assert_eq!(desk.names("s3://b").len(), 5);
    desk.variables.insert("AWS_CONFIG_FILE".into(), "/nowhere/config".into());
    let error = desk.attach("s3://b").expect_err("a refusal");
    assert_eq!(error.kind(), highwater::Kind::NotFound);
    assert_eq!(error.entry(), Some("/nowhere/config"));
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_without_its_content() {
    for wrong in [
        "aws_secret_access_key = hunter2\n",
        "[default\nx = hunter2\n",
        "[default]\nhunter2\n",
        "[default]\n= hunter2\n",
    ] {
        let desk = Desk::new(&[]);
        let error = desk.file(".aws/credentials", wrong).attach("s3://b").expect_err("a refusal");
        assert_eq!(error.kind(), highwater::Kind::Input, "{wrong}");
        let entry = error.entry().expect("an entry");
        assert!(entry.ends_with(".aws/credentials"), "{entry}");
        assert!(!format!("{error} {:?}", error.hint()).contains("hunter2"));
        assert!(error.message().contains("line"), "{error}");
    }
    let desk = Desk::new(&[]);
    let half = "[default]\naws_secret_access_key = hunter2\n";
    let error = desk.file(".aws/credentials", half).attach("s3://b").expect_err("a refusal");
    assert!(error.message().contains("half of a key") && !error.to_string().contains("hunter2"));
}

#[test]
fn a_profile_that_is_not_there_or_not_supported_is_told() {
    let desk = Desk::new(&[("AWS_PROFILE", "third")]);
    let error = desk.file(".aws/credentials", CREDENTIALS).attach("s3://b").expect_err("a refusal");
    assert_eq!(error.kind(), highwater::Kind::NotFound);
    let desk = Desk::new(&[]);
    let sso = "[default]\nsso_session = x\nregion = eu-west-1\n";
    let error = desk.file(".aws/config", sso).attach("s3://b").expect_err("a refusal");
    assert_eq!(error.kind(), highwater::Kind::Input);
    assert!(error.message().contains("sso_session"), "{error}");
    let web = "[default]\nrole_arn = r\nweb_identity_token_file = /t\n";
    let names = desk.file(".aws/config", web).names("s3://b");
    assert_eq!(names, ["aws_role_arn", "aws_web_identity_token_file"]);
}

#[test]
fn the_file_of_google_is_looked_at_before_it_is_handed_on() {
    let usual = ".config/gcloud/application_default_credentials.json";
    let desk = Desk::new(&[]);
    assert_eq!(desk.names("gs://b"), Vec::<String>::new());
    desk.file(usual, "{\"type\": \"authorized_user\"}");
    assert_eq!(desk.names("gs://b"), ["google_application_credentials"]);
    for wrong in ["hunter2", "{}", "{\"type\": \"external_account\"}"] {
        let error = desk.file(usual, wrong).attach("gs://b").expect_err("a refusal");
        assert_eq!(error.kind(), highwater::Kind::Input);
        assert!(error.entry().is_some_and(|entry| entry.ends_with(usual)), "{error}");
    }
    let desk = Desk::new(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]);
    let error = desk.attach("gs://b").expect_err("a refusal");
    assert_eq!(error.kind(), highwater::Kind::NotFound);
}
