//! Servers that call themselves Prometheus.

use std::path::Path;
use std::time::{Duration, Instant};

use dormouse_readings::config::{Auth, Config, Tls};
use dormouse_readings::{Measured, Prometheus, PrometheusError};
use rstest::rstest;

use crate::authority::Authority;
use crate::server::{Reply, Server};

fn three() -> Reply {
    result(r#""vector","result":[{"metric":{},"value":[1,"3"]}]"#)
}

fn result(data: &str) -> Reply {
    let body = format!(r#"{{"status":"success","data":{{"resultType":{data}}}}}"#);
    Reply::Whole("200 OK", "content-type: application/json\r\n", body)
}

fn config(url: &str) -> dormouse_readings::config::Server {
    dormouse_readings::config::Server {
        url: url.to_owned(),
        auth: Auth::default(),
        tls: Tls::default(),
        timeout: Duration::from_millis(500),
        max_response_bytes: 64 << 10,
        namespaces: None,
        own_queries_only: false,
    }
}

fn prometheus(server: dormouse_readings::config::Server) -> Prometheus {
    let config = Config {
        prometheus: [("main".to_owned(), server)].into(),
        ..Config::default()
    };
    Prometheus::new(&config).unwrap()
}

async fn ask(prometheus: &Prometheus) -> Result<Measured, PrometheusError> {
    prometheus.query("shop", "main", "sum(rate(hits[5m]))").await
}

fn is_three(answer: &Result<Measured, PrometheusError>) -> bool {
    matches!(answer, Ok(Measured::Value(value)) if value.to_string() == "3")
}

/// Files are looked at once a second at most.
async fn files_are_looked_at_again() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

fn write(path: &Path, text: &str) {
    // As a mounted Secret changes: in one step.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn the_query_arrives_as_it_was_written() {
    let server = Server::start(three()).await;
    let prometheus = prometheus(config(&format!("http://{}/prefix/", server.address)));
    let answer = prometheus
        .query("shop", "main", "sum by (a) (x{b=\"c&d\"}) + 1")
        .await;
    assert!(is_three(&answer), "{answer:?}");
    let request = server.last_request();
    let line = "GET /prefix/api/v1/query?query=sum+by+%28a%29+%28x%7Bb%3D%22c%26d%22%7D%29+%2B+1&timeout=500ms HTTP/1.1";
    assert!(request.starts_with(line), "{request}");
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
}

#[rstest]
#[case::redirect(
    Reply::Whole("302 Found", "location: http://elsewhere/\r\n", String::new()),
    "redirects are not followed"
)]
#[case::forbidden(Reply::Whole("403 Forbidden", "", "no such\nright".into()), "403 Forbidden: no such right")]
#[case::unavailable(
    Reply::Whole("503 Service Unavailable", "", String::new()),
    "503 Service Unavailable"
)]
#[case::its_words(
    Reply::Whole("400 Bad Request", "", r#"{"status":"error","errorType":"bad_data","error":"parse error at char 3"}"#.into()),
    "400 Bad Request: bad_data: parse error at char 3"
)]
#[case::garbage(Reply::Whole("200 OK", "", "<html>Welcome</html>".into()), "did not answer as Prometheus does")]
#[case::empty(
    Reply::Whole("200 OK", "", String::new()),
    "did not answer as Prometheus does"
)]
#[case::several(
    result(
        r#""vector","result":[{"metric":{"a":"1"},"value":[1,"3"]},{"metric":{"a":"2"},"value":[1,"4"]}]"#
    ),
    "2 series"
)]
#[case::infinite(result(r#""scalar","result":[1,"+Inf"]"#), "+Inf")]
#[case::slow(Reply::Silence, "did not answer within 500ms")]
#[case::endless(Reply::Endless, "larger than 65536 bytes")]
#[case::broken(Reply::Broken, "cannot be reached")]
#[tokio::test]
async fn whatever_goes_wrong_says_what(#[case] reply: Reply, #[case] said: &str) {
    let server = Server::start(reply).await;
    let prometheus = prometheus(config(&format!("http://{}", server.address)));
    let begun = Instant::now();
    let error = ask(&prometheus).await.unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(error.contains(said), "{error}");
    assert_eq!(
        server.requests.lock().unwrap().len(),
        1,
        "it was asked again: {error}"
    );
    // It recovers by itself.
    server.says(three());
    let answer = ask(&prometheus).await;
    assert!(is_three(&answer), "{answer:?}");
}

#[rstest]
#[case::empty(result(r#""vector","result":[]"#), "no series")]
#[case::nan(result(r#""vector","result":[{"metric":{},"value":[1,"NaN"]}]"#), "NaN")]
#[tokio::test]
async fn nothing_is_no_data(#[case] reply: Reply, #[case] said: &str) {
    let server = Server::start(reply).await;
    let answer = ask(&prometheus(config(&format!("http://{}", server.address)))).await;
    assert!(
        matches!(&answer, Ok(Measured::NoData(why)) if why.contains(said)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn one_that_is_stopped_cannot_be_reached() {
    let server = Server::start(three()).await;
    let prometheus = prometheus(config(&format!("http://{}", server.address)));
    assert!(is_three(&ask(&prometheus).await));
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = ask(&prometheus).await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn only_configured_servers_and_namespaces() {
    let server = Server::start(three()).await;
    let only_shop = dormouse_readings::config::Server {
        namespaces: Some(vec!["shop".into()]),
        ..config(&format!("http://{}", server.address))
    };
    let prometheus = prometheus(only_shop);
    assert!(is_three(&ask(&prometheus).await));
    let error = prometheus.query("kube-system", "main", "up").await.unwrap_err();
    assert!(matches!(&error, PrometheusError::NotAllowed { .. }), "{error}");
    let error = prometheus
        .query("shop", "http://10.0.0.1", "up")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("configured are main"), "{error}");
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_is_read_again_and_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    write(&token, "first-secret\n");
    let server = Server::start(three()).await;
    let mut with_token = config(&format!("http://{}", server.address));
    with_token.auth.bearer_token_file = Some(token.clone());
    let prometheus = prometheus(with_token);
    assert!(is_three(&ask(&prometheus).await));
    assert!(
        server
            .last_request()
            .contains("authorization: Bearer first-secret\r\n")
    );
    write(&token, "second-secret");
    files_are_looked_at_again().await;
    // A server that repeats what it was sent.
    server.says(Reply::Whole(
        "401 Unauthorized",
        "",
        "bad token second-secret".into(),
    ));
    let error = ask(&prometheus).await.unwrap_err();
    assert!(
        server
            .last_request()
            .contains("authorization: Bearer second-secret\r\n")
    );
    assert!(
        error.to_string().contains("401 Unauthorized: bad token ***"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    // A file that cannot be used is an error that names it, until it can.
    for (text, said) in [
        (Some(" \n"), "is empty"),
        (Some("a\nb"), "more than one line"),
        (None, "cannot be read"),
    ] {
        match text {
            Some(text) => write(&token, text),
            None => std::fs::remove_file(&token).unwrap(),
        }
        files_are_looked_at_again().await;
        let error = ask(&prometheus).await.unwrap_err();
        assert!(matches!(&error, PrometheusError::File { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(said) && error.contains("/token"), "{error}");
    }
    write(&token, "third");
    server.says(three());
    files_are_looked_at_again().await;
    assert!(is_three(&ask(&prometheus).await));
}

#[tokio::test]
async fn a_password_goes_with_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    write(&password, "open sesame\n");
    let server = Server::start(three()).await;
    let mut with_password = config(&format!("http://{}", server.address));
    with_password.auth.username = Some("ali".into());
    with_password.auth.password_file = Some(password);
    assert!(is_three(&ask(&prometheus(with_password)).await));
    // `ali:open sesame`
    let request = server.last_request();
    assert!(
        request.contains("authorization: Basic YWxpOm9wZW4gc2VzYW1l\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted_and_it_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let (old, new) = (Authority::new(), Authority::new());
    write(&file, &old.pem());
    let server = Server::with_tls(three(), &new.signs(&["127.0.0.1"]), None).await;
    let mut with_authority = config(&format!("https://{}", server.address));
    with_authority.tls.ca_file = Some(file.clone());
    let prometheus = prometheus(with_authority);
    let error = ask(&prometheus).await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // While both are in use, the file holds both.
    write(&file, &format!("{}{}", old.pem(), new.pem()));
    files_are_looked_at_again().await;
    let answer = ask(&prometheus).await;
    assert!(is_three(&answer), "{answer:?}");
    write(&file, &old.pem());
    files_are_looked_at_again().await;
    let error = ask(&prometheus).await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    write(&file, "no certificate");
    files_are_looked_at_again().await;
    let error = ask(&prometheus).await.unwrap_err();
    assert!(matches!(&error, PrometheusError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn the_name_in_the_certificate_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let authority = Authority::new();
    write(&file, &authority.pem());
    let server = Server::with_tls(three(), &authority.signs(&["prometheus.monitoring"]), None).await;
    let mut named = config(&format!("https://{}", server.address));
    named.tls.ca_file = Some(file);
    let error = ask(&prometheus(named.clone())).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    named.tls.server_name = Some("prometheus.monitoring".into());
    let answer = ask(&prometheus(named.clone())).await;
    assert!(is_three(&answer), "{answer:?}");
    named.tls.server_name = Some("not a name".into());
    let error = ask(&prometheus(named)).await.unwrap_err();
    assert!(matches!(&error, PrometheusError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new();
    let client = authority.signs(&["dormouse"]);
    write(&path("ca.pem"), &authority.pem());
    write(&path("tls.crt"), &client.certificate);
    write(&path("tls.key"), &client.key);
    let identity = authority.signs(&["127.0.0.1"]);
    let server = Server::with_tls(three(), &identity, Some(&authority.pem())).await;
    let mut without = config(&format!("https://{}", server.address));
    without.tls.ca_file = Some(path("ca.pem"));
    let mut with = without.clone();
    with.tls.cert_file = Some(path("tls.crt"));
    with.tls.key_file = Some(path("tls.key"));
    let error = ask(&prometheus(without)).await.unwrap_err();
    assert!(matches!(&error, PrometheusError::Http { .. }), "{error}");
    let prometheus = prometheus(with);
    let answer = ask(&prometheus).await;
    assert!(is_three(&answer), "{answer:?}");
    write(&path("tls.key"), "no key");
    files_are_looked_at_again().await;
    let error = ask(&prometheus).await.unwrap_err().to_string();
    assert!(error.contains("no private key"), "{error}");
}
