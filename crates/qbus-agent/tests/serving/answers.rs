//! What is answered to whom.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;
use qbus_agent::serve::{Listen, ServeError, ServeOptions, Server};
use qbus_tests::{Place, TestBus, until};

use crate::client::{Answer, ask, commit, count, serve, served};

const SAMPLE: &str = "jobs_total{queue=\"a\"} 3\n";

#[test]
fn a_scraper_gets_the_format_that_it_asks_for() {
    let served = served(|_| ());
    for (accept, content_type, head) in [
        (
            "*/*",
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE jobs_total counter\n",
        ),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# TYPE jobs counter\n",
        ),
    ] {
        let answer = served.get("/metrics", &format!("Accept: {accept}\r\n"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type))
        );
        let text = answer.text();
        assert!(text.contains(SAMPLE) && text.contains(head), "{text}");
        assert!(
            text.contains("# TYPE qbus_bus_commit_timestamp_seconds gauge\n"),
            "{text}"
        );
        assert_eq!(text.ends_with("# EOF\n"), accept.contains("openmetrics"));
    }
    let protobuf = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let answer = served.get("/metrics", &format!("Accept: {protobuf}\r\n"));
    assert!(
        answer
            .header("content-type")
            .is_some_and(|it| it.contains("encoding=delimited"))
    );
    assert!(answer.body.windows(10).any(|bytes| bytes == b"jobs_total"));
}

#[test]
fn a_page_is_packed_for_those_who_take_it() {
    let served = served(|_| ());
    let plain = served.get("/metrics", "");
    let packed = served.get("/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(
        (
            plain.header("content-encoding"),
            packed.header("content-encoding")
        ),
        (None, Some("gzip"))
    );
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.body.as_slice())
        .read_to_end(&mut unpacked)
        .expect("gzip");
    assert_eq!(unpacked, plain.body);
}

#[test]
fn methods_other_than_reading_are_refused_with_those_that_are_not() {
    let served = served(|_| ());
    let get = served.get("/metrics", "");
    let head = served.ask("HEAD", "/metrics", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    let options = served.ask("OPTIONS", "/metrics", "");
    assert_eq!(
        (options.status, options.header("allow")),
        (200, Some("GET, HEAD, OPTIONS"))
    );
    for method in ["POST", "PUT", "DELETE", "TRACE", "BREW"] {
        let refused = served.ask(method, "/metrics", "");
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("GET, HEAD, OPTIONS"))
        );
    }
    assert_eq!(served.get("/nothing", "").status, 404);
}

#[test]
fn families_are_chosen_by_the_query() {
    let served = served(|_| ());
    served
        .bus
        .open()
        .gauge("depth")
        .register()
        .expect("room")
        .set(1.0);
    commit(&served.bus);
    let depth = "# TYPE depth gauge\ndepth 1\n";
    assert_eq!(served.get("/metrics?name[]=depth", "").text(), depth);
    assert_eq!(served.get("/metrics?name%5B%5D=depth", "").text(), depth);
    assert_eq!(
        served.get("/metrics?collect[]=d*&name[]=none", "").text(),
        depth
    );
    assert!(
        !served
            .get("/metrics?exclude[]=d*", "")
            .text()
            .contains("depth")
    );
    assert_eq!(served.get("/metrics?collect[]=[", "").status, 400);
}

#[test]
fn labels_of_the_host_are_on_every_page_but_the_dashboard_s() {
    let served = served(|options| {
        options.labels = vec![("host".to_owned(), "a7".to_owned())];
    });
    for accept in [
        "",
        "Accept: application/openmetrics-text; version=1.0.0\r\n",
    ] {
        let page = served.ask("GET", "/metrics", accept).text();
        assert!(
            page.contains("jobs_total{queue=\"a\",host=\"a7\"} 3"),
            "{page}"
        );
        let time = "qbus_bus_commit_timestamp_seconds{host=\"a7\"} ";
        assert!(page.contains(time), "{page}");
    }
    let json = served.ask("GET", "/api/v1/series", "").text();
    assert!(!json.contains("a7"), "{json}");
}

#[test]
fn programs_get_json() {
    let served = served(|_| ());
    let json = |path: &str| -> serde_json::Value {
        let answer = served.get(path, "");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_slice(&answer.body).expect("JSON")
    };
    let series = json("/api/v1/series?name[]=jobs_total&history=1");
    assert_eq!(
        (&series["metrics"][0]["value"], &series["metrics"][1]),
        (&3.0.into(), &serde_json::Value::Null)
    );
    assert_eq!(series["history"]["jobs_total"][0]["value"], 3.0);
    let ledger = json("/api/v1/ledger");
    assert_eq!(
        (
            &ledger["records"]["delivered"],
            &ledger["aggregator"]["alive"]
        ),
        (&1.into(), &false.into())
    );
    assert_eq!(ledger["owners"][0]["pid"], u64::from(std::process::id()));
    // Without the bus the snapshot says what it knows.
    let (server, _) = serve(&served.bus, |options| options.bus = None);
    let answer = ask(crate::client::connect(&server), "GET", "/api/v1/ledger", "");
    let ledger: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (&ledger["records"]["delivered"], &ledger["owners"]),
        (&1.into(), &serde_json::Value::Null)
    );
}

#[test]
fn without_a_young_snapshot_the_reason_is_said() {
    let bus = TestBus::small(Place::Named);
    let (server, _) = serve(&bus, |options| {
        options.max_age = Some(Duration::from_secs(3600))
    });
    let get = |path| ask(crate::client::connect(&server), "GET", path, "");
    for path in ["/metrics", "/api/v1/series", "/api/v1/ledger", "/-/ready"] {
        let answer = get(path);
        assert_eq!(answer.status, 503);
        assert!(
            answer.text().contains("start `qbus agg -b BUS`"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(get("/-/healthy").status, 200);
    count(&bus, 3.0);
    assert!(get("/metrics").text().contains(SAMPLE));
    assert_eq!(get("/-/ready").status, 200);
    let (strict, _) = serve(&bus, |options| {
        options.max_age = Some(Duration::from_nanos(1))
    });
    let answer = ask(crate::client::connect(&strict), "GET", "/metrics", "");
    assert!(
        answer.status == 503 && answer.text().contains("s old"),
        "{answer:?}"
    );
}

#[test]
fn a_snapshot_that_was_made_anew_is_the_one_that_counts() {
    let served = served(|_| ());
    assert!(served.get("/metrics", "").text().contains(SAMPLE));
    fs::remove_file(served.bus.address().snapshot()).expect("it was there");
    assert_eq!(served.get("/metrics", "").status, 503);
    count(&served.bus, 4.0);
    let text = served.get("/metrics", "").text();
    assert!(text.contains("jobs_total{queue=\"a\"} 4\n"), "{text}");
}

#[test]
fn what_is_no_snapshot_is_said_to_be_none_until_there_is_one() {
    let served = served(|_| ());
    let path = served.bus.address().snapshot();
    let sound = fs::read(&path).expect("a snapshot");
    let replace = |bytes: &[u8]| {
        let beside = path.with_extension("beside");
        fs::write(&beside, bytes).expect("room");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::rename(&beside, &path).expect("a name");
    };
    let noise: Vec<u8> = (0..sound.len()).map(|at| (at * at % 251) as u8).collect();
    let zeros = vec![0; sound.len()];
    for bytes in [&[][..], &sound[..7], &sound[..4096], &noise, &zeros] {
        replace(bytes);
        for path in ["/metrics", "/api/v1/series", "/api/v1/ledger", "/-/ready"] {
            let answer = served.get(path, "");
            let said = answer.text();
            assert_eq!(answer.status, 503, "{} bytes, {path}: {said}", bytes.len());
            assert!(said.contains("there is no snapshot to show"), "{said}");
        }
        assert_eq!(served.get("/-/healthy", "").status, 200);
        assert_eq!(served.get("/", "").status, 200);
    }
    // One that was cut short is none, or says all of it: what is missing was free.
    let whole = |answer: &Answer| answer.status == 200 && answer.text().contains(SAMPLE);
    let mut refused = 0;
    for len in (8192..sound.len()).step_by(65_536) {
        replace(&sound[..len]);
        let answer = served.get("/metrics", "");
        assert!(answer.status == 503 || whole(&answer), "{len}: {answer:?}");
        refused += usize::from(answer.status == 503);
    }
    assert!(refused > 2, "{refused}");
    fs::remove_file(&path).expect("it was there");
    fs::create_dir(&path).expect("a folder");
    assert_eq!(served.get("/metrics", "").status, 503);
    fs::remove_dir(&path).expect("it is empty");
    replace(&sound);
    assert!(served.get("/metrics", "").text().contains(SAMPLE));
}

#[test]
fn every_commit_is_on_the_next_page() {
    let served = served(|_| ());
    for jobs in 4..10 {
        count(&served.bus, 1.0);
        for headers in ["", "Accept-Encoding: gzip\r\n"] {
            let answer = served.get("/metrics", headers);
            let mut text = String::new();
            match answer.header("content-encoding") {
                None => text = answer.text(),
                Some(_) => drop(GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text)),
            }
            assert!(
                text.contains(&format!("jobs_total{{queue=\"a\"}} {jobs}\n")),
                "{text}"
            );
        }
    }
}

#[test]
fn many_at_once_get_the_whole_page() {
    let served = served(|_| ());
    let expected = served.get("/metrics", "").body;
    thread::scope(|scope| {
        let scrapers: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| (0..10).all(|_| served.get("/metrics", "").body == expected)))
            .collect();
        assert!(
            scrapers
                .into_iter()
                .all(|scraper| scraper.join().expect("no panic"))
        );
    });
}

#[test]
fn a_unix_socket_has_its_mode_and_goes_with_the_server() {
    let bus = TestBus::small(Place::Named);
    count(&bus, 3.0);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("q.sock");
    // What a server left that was killed.
    drop(UnixListener::bind(&path).expect("a socket"));
    let listen = Listen::Unix {
        path: path.clone(),
        mode: 0o660,
    };
    let (server, _) = serve(&bus, |options| options.listen = vec![listen.clone()]);
    let mode = fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let answer: Answer = ask(
        UnixStream::connect(&path).expect("a server"),
        "GET",
        "/metrics",
        "",
    );
    assert!(answer.text().contains(SAMPLE));
    let mut options = ServeOptions::new(bus.address().snapshot());
    options.listen = vec![listen];
    let taken = Server::start(options, |_| ()).expect_err("it is taken");
    assert!(
        matches!(taken, ServeError::Listen(_)) && taken.to_string().contains("is taken"),
        "{taken}"
    );
    server.stop();
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_taken_port_is_named() {
    let served = served(|_| ());
    let address = served.server.urls()[0]
        .replace("http://", "")
        .replace('/', "");
    let mut options = ServeOptions::new(served.bus.address().snapshot());
    options.listen = vec![address.parse().expect("an address")];
    let taken = Server::start(options, |_| ()).expect_err("it is taken");
    assert!(
        taken.to_string().contains(&format!("{address} is taken")),
        "{taken}"
    );
}

#[test]
fn who_can_be_reached_by_others_is_warned() {
    let served = served(|options| options.listen = vec!["0.0.0.0:0".parse().expect("an address")]);
    until("a warning", || {
        let news = served.news.lock().expect("no panic");
        news.iter()
            .any(|said| said.contains("can be reached by other machines"))
    });
}
