//! What is asked of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dormouse_readings::config::{Auth, Config, Server, Tls};
use dormouse_readings::{Measured, Prometheus, PrometheusError, template};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::process::{PASSWORD, Process, USER, write, write_identity};

pub struct Case {
    pub name: &'static str,
    pub run: fn(PathBuf) -> BoxFuture<'static, ()>,
}

macro_rules! case {
    ($function:ident) => {
        Case {
            name: stringify!($function),
            run: |program| Box::pin($function(program)),
        }
    };
}

pub fn all() -> Vec<Case> {
    vec![
        case!(values_no_data_and_errors_of_the_real_one),
        case!(a_rotated_authority_is_followed_without_a_restart),
        case!(a_wrong_password_and_a_stopped_server),
    ]
}

/// Somebody whom Prometheus scrapes.
async fn target() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let page = "sessions{kind=\"ws\"} 2\nsessions{kind=\"sse\"} 5\n";
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            );
            if stream.read(&mut request).await.is_ok() {
                // A scrape that breaks off is Prometheus' own matter.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    address
}

fn server(process: &Process) -> Server {
    Server {
        url: format!("https://127.0.0.1:{}", process.port),
        auth: Auth {
            username: Some(USER.into()),
            password_file: Some(process.path("password")),
            bearer_token_file: None,
        },
        tls: Tls {
            ca_file: Some(process.path("ca.pem")),
            ..Tls::default()
        },
        timeout: Duration::from_secs(5),
        max_response_bytes: 1 << 20,
        namespaces: None,
        own_queries_only: false,
    }
}

fn client(server: Server) -> Prometheus {
    let config = Config {
        prometheus: [("main".to_owned(), server)].into(),
        ..Config::default()
    };
    Prometheus::new(&config).unwrap()
}

async fn ask(client: &Prometheus, query: &str) -> Result<Measured, PrometheusError> {
    client.query("shop", "main", query).await
}

async fn value(client: &Prometheus, query: &str) -> String {
    match ask(client, query).await {
        Ok(Measured::Value(value)) => value.to_string(),
        other => panic!("{query}: {other:?}"),
    }
}

/// It listens before it is ready to answer.
async fn ready(client: &Prometheus) {
    let begun = Instant::now();
    while let Err(error) = ask(client, "vector(1)").await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn values_no_data_and_errors_of_the_real_one(program: PathBuf) {
    let process = Process::start(&program, &Authority::new(), &target().await).await;
    let client = client(server(&process));
    ready(&client).await;
    // Values: vectors of one and scalars, however they are written. They are shown as Kubernetes writes quantities.
    for (query, expected) in [
        ("vector(3)", "3"),
        ("scalar(vector(2.5))", "2500m"),
        ("7", "7"),
        ("vector(0) * -1", "0"),
        ("vector(123456789012)", "123456789012"),
        ("vector(1e-9)", "1e-9"),
    ] {
        assert_eq!(value(&client, query).await, expected, "{query}");
    }
    // What it scraped itself, by a query with places.
    let window = Duration::from_secs(60);
    let query = r#"sum(max_over_time(sessions{namespace="{namespace}",app="{name}"}[{window}]))"#;
    let query = template::expand(query, "shop", "web", window).unwrap();
    let begun = Instant::now();
    while matches!(ask(&client, &query).await, Ok(Measured::NoData(_))) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing was scraped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(value(&client, &query).await, "7");
    // No data.
    for (query, said) in [
        ("vector(1) > 2", "no series"),
        ("no_such_metric", "no series"),
        ("vector(0) / 0", "NaN"),
    ] {
        let answer = ask(&client, query).await;
        assert!(
            matches!(&answer, Ok(Measured::NoData(why)) if why.contains(said)),
            "{query}: {answer:?}"
        );
    }
    // Errors.
    for (query, said) in [
        (r#"sessions{app="web"}"#, "the query gives 2 series"),
        ("vector(1) / 0", "+Inf"),
        ("up[1m]", "a matrix"),
        (r#""text""#, "a string"),
        ("sum(", "400 Bad Request: bad_data: invalid parameter \"query\""),
    ] {
        let error = ask(&client, query).await.expect_err(query).to_string();
        assert!(error.contains(said), "{query}: {error}");
    }
}

async fn a_rotated_authority_is_followed_without_a_restart(program: PathBuf) {
    let (old, new) = (Authority::new(), Authority::new());
    let process = Process::start(&program, &old, &target().await).await;
    let client = client(server(&process));
    ready(&client).await;
    // Prometheus reads its certificate again for every connection.
    write_identity(process.folder.path(), &new.signs(&["127.0.0.1"]));
    // A new client has no connection yet that was made before.
    let late = self::client(server(&process));
    let error = ask(&late, "vector(1)").await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    write(&process.path("ca.pem"), &new.pem());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(value(&late, "vector(4)").await, "4");
    assert_eq!(value(&client, "vector(5)").await, "5");
}

async fn a_wrong_password_and_a_stopped_server(program: PathBuf) {
    let mut process = Process::start(&program, &Authority::new(), &target().await).await;
    let client = client(server(&process));
    ready(&client).await;
    write(&process.path("password"), "wrong horse");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = ask(&client, "vector(1)").await.unwrap_err();
    assert!(
        matches!(&error, PrometheusError::Refused { status, .. } if status.as_u16() == 401),
        "{error}"
    );
    assert!(!format!("{error:?} {error}").contains("horse"), "{error}");
    write(&process.path("password"), PASSWORD);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(value(&client, "vector(1)").await, "1");
    process.stop();
    let begun = Instant::now();
    let error = ask(&client, "vector(1)").await.unwrap_err();
    assert!(matches!(&error, PrometheusError::Http { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
