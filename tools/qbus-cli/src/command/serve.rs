//! `qbus serve`

use std::path::Path;
use std::time::Duration;

use qbus::Address;
use qbus_agent::serve::{Listen, ServeOptions, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::{Serve, Web};
use crate::command::is_an_end;
use crate::error::{Doing, Error};
use crate::log::{self, info, warn};
use crate::service::Manager;

pub(crate) fn run(address: &Address, serve: &Serve) -> Result<(), Error> {
    log::set_level(serve.log_level);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).doing("handle signals")?;
    // Followed each time that it is opened: an aggregator may come later, and keep it elsewhere.
    let beside = address.snapshot_link();
    let snapshot = serve.snapshot.as_deref().unwrap_or(&beside);
    let server = start(
        address,
        snapshot,
        &serve.listen,
        serve.max_age.0,
        &serve.web,
        &serve.labels,
    )?;
    let manager = Manager::of_environment();
    manager.ready(format_args!("serving the bus {address}"));
    signals.forever().any(is_an_end);
    manager.stopping();
    server.stop();
    Ok(())
}

/// Starts a server, and says where it is.
pub(crate) fn start(
    address: &Address,
    snapshot: &Path,
    listen: &[Listen],
    max_age: Option<Duration>,
    web: &Web,
    labels: &[(String, String)],
) -> Result<Server, Error> {
    let options = ServeOptions {
        listen: listen.to_vec(),
        bus: Some(address.clone()),
        max_age,
        max_requests: web.max_requests,
        hosts: web.allowed_hosts.clone(),
        web_config: web.web_config.clone(),
        labels: labels.to_vec(),
        ..ServeOptions::new(snapshot.to_owned())
    };
    let server = Server::start(options, warn).map_err(Error::failed)?;
    for url in server.urls() {
        info(format_args!("serving the bus {address} at {url}"));
    }
    Ok(server)
}
