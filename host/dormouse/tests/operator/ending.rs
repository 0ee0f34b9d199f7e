//! A process ends when it is asked to, whatever does not answer and whoever does not read.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rstest::rstest;
use rustix::process::Signal;

use super::support::{Api, PATIENCE, Process, Server, dormouse, until_said};

fn with_server(subcommand: &str, server: &Server) -> Command {
    let mut command = dormouse(&[
        subcommand,
        "--kubeconfig-path",
        &server.kubeconfig.display().to_string(),
    ]);
    if subcommand == "autoscaler" || subcommand == "dlx" {
        command.args([
            "--plugins-dir",
            "/nonexistent",
            "--admin-address",
            "127.0.0.1:19090",
        ]);
        command.env("DORMOUSE_BIND_ADDRESS", "127.0.0.1");
    }
    command
}

#[rstest]
fn operator_01_a_signal_ends_a_process_that_waits_for_the_api_server(
    #[values("autoscaler", "dlx")] subcommand: &str,
    #[values(Api::Refuses, Api::Silent, Api::Hangs)] api: Api,
    #[values(Signal::TERM, Signal::INT)] signal: Signal,
) {
    let server = Server::start(api);
    let mut process = Process::start(with_server(subcommand, &server).stderr(Stdio::piped()));
    until_said(process.take_stderr(), "connecting to the cluster");
    process.signal(signal);
    let status = process.end();
    assert_eq!(status.code(), Some(0), "asked to end, it ends in order: {status}");
}

#[rstest]
fn operator_01_a_signal_ends_subcommands_that_wait_for_the_api_server(
    #[values("restore", "check")] subcommand: &str,
    #[values(Api::Silent, Api::Hangs)] api: Api,
) {
    let server = Server::start(api);
    let mut process = Process::start(
        with_server(subcommand, &server)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    server.asked.recv_timeout(PATIENCE).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(
        process.end().code(),
        Some(1),
        "it did not do what it was called for"
    );
}

#[test]
fn operator_01_a_second_signal_ends_at_once() {
    let server = Server::start(Api::Silent);
    let mut process = Process::start(
        with_server("restore", &server)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    server.asked.recv_timeout(PATIENCE).unwrap();
    process.signal(Signal::TERM);
    // The same signal twice at once would be one.
    std::thread::sleep(Duration::from_millis(500));
    process.signal(Signal::INT);
    let code = process.end().code();
    assert!(code == Some(130) || code == Some(1), "{code:?}");
}

#[rstest]
fn operator_01_a_signal_ends_a_process_that_reads_a_file_that_hangs(
    #[values("autoscaler", "dlx", "restore", "config")] subcommand: &str,
    #[values("--config", "--kubeconfig-path")] flag: &str,
) {
    if subcommand == "config" && flag != "--config" {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut command = dormouse(&[subcommand]);
    if subcommand == "config" {
        command.arg("check");
    }
    let mut process = Process::start(
        command
            .arg(flag)
            .arg(&fifo)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    // Whether it hears the signal before or while it reads makes no difference; before it hears any, the signal ends it.
    std::thread::sleep(Duration::from_millis(500));
    process.signal(Signal::TERM);
    process.end();
}

#[rstest]
fn operator_02_nobody_reads_the_logs(#[values("autoscaler", "dlx")] subcommand: &str) {
    let server = Server::start(Api::Silent);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut process = Process::start(
        with_server(subcommand, &server)
            .stdout(Stdio::null())
            .stderr(writer),
    );
    server.asked.recv_timeout(PATIENCE).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn operator_02_a_log_pipe_that_is_full_holds_nobody() {
    let server = Server::start(Api::Silent);
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // The usual size of a pipe, in pieces, so that a smaller one would not block the test.
    writer.write_all(&vec![b'x'; 65_536]).unwrap();
    let mut process = Process::start(
        with_server("autoscaler", &server)
            .stdout(Stdio::null())
            .stderr(writer),
    );
    server.asked.recv_timeout(PATIENCE).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn operator_02_an_answer_that_nobody_reads_ends_quietly() {
    for args in [&["crd"][..], &["--help"], &["autoscaler", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = dormouse(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(101), "{args:?}: {said}");
        assert!(said.is_empty(), "{args:?}: {said}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = dormouse(&["crd"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(141), "as the shell shows other tools");
}

#[test]
fn operator_02_work_goes_on_without_anybody_who_reads_how_far_it_is() {
    let server = Server::start(Api::Silent);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut process = Process::start(
        with_server("restore", &server)
            .arg("--deadline=2s")
            .stdout(writer)
            .stderr(Stdio::null()),
    );
    // Its first line comes before its first request.
    server.asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(process.end().code(), Some(1), "by its own deadline");
}
