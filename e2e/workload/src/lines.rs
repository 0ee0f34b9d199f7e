//! A protocol that is not HTTP, and in which the server speaks first: a greeting, then every line comes back; `quit` ends it.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long open connections may go on after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// What every greeting begins with.
pub const GREETING: &str = "220 ";

/// Serves until `ended`.
pub async fn run(port: u16, pod: &str, ended: impl Future<Output = ()>) -> Result<()> {
    let listener = match TcpListener::bind(("0.0.0.0", port)).await {
        Ok(listener) => listener,
        Err(error) => {
            // Two containers of one pod share its ports; the first of them serves it.
            eprintln!("port {port} is not served: {error}");
            return Ok(());
        }
    };
    let greeting = format!("{GREETING}{pod}\r\n");
    let mut ended = Box::pin(ended);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let greeting = greeting.clone();
                    open.spawn(async move {
                        let _ = talk(stream, &greeting).await;
                    });
                }
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
            () = &mut ended => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, async { while open.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn talk(stream: TcpStream, greeting: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(greeting.as_bytes()).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line.trim() != "quit" {
        stream.write_all(line.as_bytes()).await?;
        line.clear();
    }
    stream.shutdown().await
}

/// One dialogue of a client.
///
/// # Errors
/// Says at which step it came to nothing.
pub async fn dialogue(authority: &str) -> Result<(), String> {
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| format!("connecting: {error}"))?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .await
        .map_err(|error| format!("greeting: {error}"))?;
    if !line.starts_with(GREETING) {
        return Err(format!("no greeting but {line:?}"));
    }
    for said in ["one\r\n", "two\r\n"] {
        stream
            .write_all(said.as_bytes())
            .await
            .map_err(|error| format!("sending: {error}"))?;
        line.clear();
        stream
            .read_line(&mut line)
            .await
            .map_err(|error| format!("reading: {error}"))?;
        if line != said {
            return Err(format!("{said:?} came back as {line:?}"));
        }
    }
    stream
        .write_all(b"quit\r\n")
        .await
        .map_err(|error| format!("ending: {error}"))
}
