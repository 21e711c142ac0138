//! A receiver that does as it is told: takes, refuses, breaks off, dawdles, or talks nonsense.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use qbus_tests::until;

/// What it does with the next request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Answers with that status line's end, headers and body.
    Say(&'static str, &'static str, &'static [u8]),
    /// Reads half of it, and resets the connection.
    Reset,
    /// Takes it, and breaks off before the answer: nobody knows that it was taken.
    TakeSilently,
    /// Answers after that time.
    Dawdle(Duration),
    /// Answers what is not HTTP.
    Garbage,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether it was answered that all is well.
    pub(crate) is_taken: bool,
}

#[derive(Default)]
struct State {
    acts: VecDeque<Act>,
    usual: Option<Act>,
    received: Vec<Received>,
}

pub(crate) struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Does these things in turn, and takes all that comes after them.
    pub(crate) fn start(acts: &[Act]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            acts: acts.iter().copied().collect(),
            ..State::default()
        }));
        let shared = state.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Receiver { port, state }
    }

    /// What it does once its list is done.
    pub(crate) fn usually(&self, act: Act) {
        self.state.lock().expect("no panic").usual = Some(act);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.lock().expect("no panic").received.clone()
    }

    pub(crate) fn taken(&self) -> Vec<Received> {
        self.received()
            .into_iter()
            .filter(|one| one.is_taken)
            .collect()
    }

    pub(crate) fn await_taken(&self, number: usize) -> Vec<Received> {
        until("requests that are taken", || self.taken().len() >= number);
        self.taken()
    }
}

/// Requests of a connection; `None` once there is no other.
fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let len: usize = headers.get("content-length")?.parse().ok()?;
        let act = {
            let mut state = state.lock().ok()?;
            let next = state.acts.pop_front();
            next.or(state.usual)
                .unwrap_or(Act::Say("204 No Content", "", b""))
        };
        let mut body = vec![0; if let Act::Reset = act { len / 2 } else { len }];
        reader.read_exact(&mut body).ok()?;
        let note = |is_taken| {
            let received = Received {
                path: path.clone(),
                headers: headers.clone(),
                body: body.clone(),
                is_taken,
            };
            state.lock().expect("no panic").received.push(received);
        };
        match act {
            Act::Say(status, more, said) => {
                note(status.starts_with('2'));
                let len = said.len();
                let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {len}\r\n\r\n");
                stream.write_all(head.as_bytes()).ok()?;
                stream.write_all(said).ok()?;
            }
            // What was not read makes it a reset.
            Act::Reset => {
                note(false);
                return None;
            }
            Act::TakeSilently => {
                note(true);
                return None;
            }
            Act::Dawdle(time) => {
                note(false);
                thread::sleep(time);
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
            }
            Act::Garbage => {
                note(false);
                stream
                    .write_all(b"\x15\x03\x01 no such thing\r\n\r\n")
                    .ok()?;
                return None;
            }
        }
    }
}
