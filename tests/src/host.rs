//! A program with metrics among other things, wherever a test puts it.

use std::process::Command;

use qbus::Address;

use crate::process::Process;

/// A `test-host` that does what it is told, and has to end well whatever it met.
#[derive(Debug)]
pub struct Host {
    process: Process,
}

impl Host {
    /// Starts one. `place` is shell that ends by executing `"$@"`, `exec "$@"` say.
    pub fn start(program: &str, address: &Address, place: &str) -> Host {
        let mut command = Command::new("sh");
        command.args(["-ec", place, "sh", program]);
        command.arg(address.to_string());
        Host {
            process: Process::spawn(command),
        }
    }

    /// Tells it to do something; its answer.
    pub fn ask(&mut self, what: &str) -> String {
        self.process.tell(what);
        self.process.line()
    }

    /// Tells it to do something that has to come out like that.
    pub fn expect(&mut self, what: &str, answer: &str) {
        assert_eq!(self.ask(what), answer, "to {what}");
    }

    /// Tells it to do something that has to be refused with these words in the reason.
    pub fn expect_refusal(&mut self, what: &str, words: &[&str]) {
        let answer = self.ask(what);
        let is_said = words.iter().all(|word| answer.contains(word));
        assert!(
            answer.starts_with("refused: ") && is_said,
            "to {what}: {answer}"
        );
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to be talked to.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it with SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Lets it end; it has to end well.
    pub fn end(self) {
        self.process.end_well();
    }
}
