//! Services over networks that the kernel itself provides or uses: NFS, virtual servers, fibre
//! channel, tapes.

use std::net::Ipv4Addr;
use std::path::Path;

use super::hardware::Hardware;
use crate::kernel_file::read_once;
use crate::node_metric::Catalog;
use crate::readings::Readings;
use crate::sysfs::{items, number, word};

impl Hardware {
    pub(crate) fn nfs(net: &Path) -> Hardware {
        Hardware::new(net.join("rpc/nfs"), Box::new(push_nfs))
    }

    pub(crate) fn nfsd(net: &Path) -> Hardware {
        Hardware::new(net.join("rpc/nfsd"), Box::new(push_nfsd))
    }

    pub(crate) fn ipvs(net: &Path) -> Hardware {
        Hardware::new(net.to_owned(), Box::new(push_ipvs))
    }

    pub(crate) fn fibre_channel(sys: &Path) -> Hardware {
        Hardware::new(sys.join("class/fc_host"), Box::new(push_fibre_channel))
    }

    pub(crate) fn tapes(sys: &Path) -> Hardware {
        Hardware::new(sys.join("class/scsi_tape"), Box::new(push_tapes))
    }
}

/// What a client of NFS does, in the order of the kernel's file; behind the count of them.
const METHODS_2: &str = "Null GetAttr SetAttr Root Lookup ReadLink Read WrCache Write Create \
    Remove Rename Link SymLink MkDir RmDir ReadDir FsStat";
const METHODS_3: &str = "Null GetAttr SetAttr Lookup Access ReadLink Read Write Create MkDir \
    SymLink MkNod Remove RmDir Rename Link ReadDir ReadDirPlus FsStat FsInfo PathConf Commit";
const METHODS_4: &str = "Null Read Write Commit Open OpenConfirm OpenNoattr OpenDowngrade Close \
    Setattr FsInfo Renew SetClientID SetClientIDConfirm Lock Lockt Locku Access Getattr Lookup \
    LookupRoot Remove Rename Link Symlink Create Pathconf StatFs ReadLink ReadDir ServerCaps \
    DelegReturn GetACL SetACL FsLocations ReleaseLockowner Secinfo FsidPresent ExchangeID \
    CreateSession DestroySession Sequence GetLeaseTime ReclaimComplete LayoutGet GetDeviceInfo \
    LayoutCommit LayoutReturn SecinfoNoName TestStateID FreeStateID GetDeviceList \
    BindConnToSession DestroyClientID Seek Allocate DeAllocate LayoutStats Clone";

/// What a server of NFS did for clients of version 4. The first three are no operations.
const OPERATIONS_4: &str = "- - - Access Close Commit Create DelegPurge DelegReturn GetAttr GetFH \
    Link Lock Lockt Locku Lookup LookupRoot Nverify Open OpenAttr OpenConfirm OpenDgrd PutFH - - \
    Read ReadDir ReadLink Remove Rename Renew RestoreFH SaveFH SecInfo SetAttr Verify Write \
    RelLockOwner";

/// Pushes the metric of a service with so many of them.
type Push<'a> = dyn FnMut(&str, &[(&str, &str)], Option<&f64>) + 'a;

/// Calls `each` with the key and the numbers of each line.
fn each_line(text: &str, mut each: impl FnMut(&str, &[f64])) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().unwrap_or_default();
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        each(key, &numbers);
    }
}

fn push_requests(proto: &str, methods: &str, numbers: &[f64], push: &mut Push<'_>) {
    // An old kernel knows less of them, and a new one more than have a name here.
    let methods = methods.split_ascii_whitespace();
    for (method, requests) in methods.zip(numbers.iter().skip(1)) {
        if method != "-" {
            let labels = [("method", method), ("proto", proto)];
            push("requests_total", &labels, Some(requests));
        }
    }
}

/// A pusher of the metrics that begin so.
fn pusher<'a>(
    begins: &'a str,
    catalog: &'a mut Catalog,
    out: &'a mut Readings,
) -> impl FnMut(&str, &[(&str, &str)], Option<&f64>) + 'a {
    let help = "What the kernel counted under this name.";
    move |name, labels, value| {
        let Some(value) = value else { return };
        let name = format!("{begins}{name}");
        let metric = match name.ends_with("_total") {
            true => catalog.counter(&name, help),
            false => catalog.gauge(&name, help),
        };
        out.push_node(metric, labels, *value);
    }
}

fn push_nfs(path: &Path, catalog: &mut Catalog, buffer: &mut Vec<u8>, out: &mut Readings) -> bool {
    let Ok(text) = read_once(path, buffer) else {
        return false;
    };
    let push = &mut pusher("node_nfs_", catalog, out);
    each_line(text, |key, numbers| match key {
        "net" => {
            push("packets_total", &[("protocol", "udp")], numbers.get(1));
            push("packets_total", &[("protocol", "tcp")], numbers.get(2));
            push("connections_total", &[], numbers.get(3));
        }
        "rpc" => {
            push("rpcs_total", &[], numbers.first());
            push("rpc_retransmissions_total", &[], numbers.get(1));
            push("rpc_authentication_refreshes_total", &[], numbers.get(2));
        }
        "proc2" => push_requests("2", METHODS_2, numbers, push),
        "proc3" => push_requests("3", METHODS_3, numbers, push),
        "proc4" => push_requests("4", METHODS_4, numbers, push),
        _ => {}
    });
    true
}

fn push_nfsd(path: &Path, catalog: &mut Catalog, buffer: &mut Vec<u8>, out: &mut Readings) -> bool {
    let Ok(text) = read_once(path, buffer) else {
        return false;
    };
    let push = &mut pusher("node_nfsd_", catalog, out);
    each_line(text, |key, numbers| match key {
        "rc" => {
            push("reply_cache_hits_total", &[], numbers.first());
            push("reply_cache_misses_total", &[], numbers.get(1));
            push("reply_cache_nocache_total", &[], numbers.get(2));
        }
        "fh" => push("file_handles_stale_total", &[], numbers.first()),
        "io" => {
            push("disk_bytes_read_total", &[], numbers.first());
            push("disk_bytes_written_total", &[], numbers.get(1));
        }
        "th" => push("server_threads", &[], numbers.first()),
        "ra" => {
            push("read_ahead_cache_size_blocks", &[], numbers.first());
            push("read_ahead_cache_not_found_total", &[], numbers.get(11));
        }
        "net" => {
            push("packets_total", &[("proto", "udp")], numbers.get(1));
            push("packets_total", &[("proto", "tcp")], numbers.get(2));
            push("connections_total", &[], numbers.get(3));
        }
        "rpc" => {
            push("server_rpcs_total", &[], numbers.first());
            push("rpc_errors_total", &[("error", "fmt")], numbers.get(2));
            push("rpc_errors_total", &[("error", "auth")], numbers.get(3));
            push("rpc_errors_total", &[("error", "cInt")], numbers.get(4));
        }
        // That a client asked whether somebody is there is not shown of a server.
        "proc2" => push_requests("2", &METHODS_2.replacen("Null", "-", 1), numbers, push),
        "proc3" => push_requests("3", &METHODS_3.replacen("Null", "-", 1), numbers, push),
        "proc4ops" => push_requests("4", OPERATIONS_4, numbers, push),
        _ => {}
    });
    true
}

fn push_ipvs(net: &Path, catalog: &mut Catalog, buffer: &mut Vec<u8>, out: &mut Readings) -> bool {
    let Ok(text) = read_once(&net.join("ip_vs_stats"), buffer) else {
        return false;
    };
    let push = &mut pusher("node_ipvs_", catalog, out);
    const TOTALS: [&str; 5] = [
        "connections_total",
        "incoming_packets_total",
        "outgoing_packets_total",
        "incoming_bytes_total",
        "outgoing_bytes_total",
    ];
    // Two lines of headings, then hexadecimal numbers.
    let totals = text.lines().nth(2).unwrap_or_default();
    for (name, word) in TOTALS.into_iter().zip(totals.split_ascii_whitespace()) {
        let total = u64::from_str_radix(word, 16).ok().map(|total| total as f64);
        push(name, &[], total.as_ref());
    }
    let Ok(text) = read_once(&net.join("ip_vs"), buffer) else {
        return true;
    };
    let (mut proto, mut local, mut mark) = (String::new(), None, String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [kind @ ("TCP" | "UDP" | "SCTP"), address, ..] => {
                (proto, local, mark) = (kind.to_owned(), endpoint(address), String::new());
            }
            ["FWM", number, ..] => {
                let none = (String::new(), "0".to_owned());
                (proto, local, mark) = ("FWM".to_owned(), Some(none), number.to_owned());
            }
            ["->", address, _, weight, active, inactive] => {
                let (Some((host, port)), Some((local_host, local_port))) =
                    (endpoint(address), &local)
                else {
                    continue;
                };
                let labels = [
                    ("local_address", local_host.as_str()),
                    ("local_port", local_port),
                    ("remote_address", &host),
                    ("remote_port", &port),
                    ("proto", &proto),
                    ("local_mark", &mark),
                ];
                for (name, word) in [
                    ("backend_connections_active", active),
                    ("backend_connections_inactive", inactive),
                    ("backend_weight", weight),
                ] {
                    push(name, &labels, word.parse().ok().as_ref());
                }
            }
            _ => {}
        }
    }
    true
}

/// `C0A80016:0CEA` is 192.168.0.22, port 3306; an address of version 6 stands in brackets.
fn endpoint(text: &str) -> Option<(String, String)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?.to_string();
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(host) => host.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None => Ipv4Addr::from_bits(u32::from_str_radix(host, 16).ok()?).to_string(),
    };
    Some((host, port))
}

fn push_fibre_channel(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    const COUNTERS: [(&str, &str); 14] = [
        ("dumped_frames", "dumped_frames_total"),
        ("error_frames", "error_frames_total"),
        ("fcp_packet_aborts", "fcp_packet_aborts_total"),
        ("invalid_crc_count", "invalid_crc_total"),
        ("invalid_tx_word_count", "invalid_tx_words_total"),
        ("link_failure_count", "link_failure_total"),
        ("loss_of_signal_count", "loss_of_signal_total"),
        ("loss_of_sync_count", "loss_of_sync_total"),
        ("nos_count", "nos_total"),
        ("rx_frames", "rx_frames_total"),
        ("rx_words", "rx_words_total"),
        ("seconds_since_last_reset", "seconds_since_last_reset_total"),
        ("tx_frames", "tx_frames_total"),
        ("tx_words", "tx_words_total"),
    ];
    const TEXTS: [&str; 10] = [
        "speed",
        "port_state",
        "port_type",
        "port_id",
        "port_name",
        "fabric_name",
        "symbolic_name",
        "supported_classes",
        "supported_speeds",
        "dev_loss_tmo",
    ];
    let hosts = items(folder, "host");
    let push = &mut pusher("node_fibrechannel_", catalog, out);
    for host in &hosts {
        let label = ("fc_host", host.name.as_str());
        let texts = TEXTS.map(|file| {
            let text = word(&host.path.join(file), buffer).unwrap_or_default();
            text.trim().trim_start_matches("0x").to_owned()
        });
        let mut labels = vec![label];
        labels.extend(TEXTS.into_iter().zip(texts.iter().map(String::as_str)));
        push("info", &labels, Some(&1.0));
        for (file, name) in COUNTERS {
            let count = number(&host.path.join("statistics").join(file), buffer);
            // All ones is what an adapter says of a counter that it does not have.
            push(
                name,
                &[label],
                count.filter(|count| *count < u64::MAX as f64).as_ref(),
            );
        }
    }
    !hosts.is_empty()
}

fn push_tapes(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    const FILES: [(&str, &str, f64); 10] = [
        ("in_flight", "io_now", 1.0),
        ("io_ns", "io_time_seconds_total", 1e9),
        ("other_cnt", "io_others_total", 1.0),
        ("read_byte_cnt", "read_bytes_total", 1.0),
        ("read_cnt", "reads_completed_total", 1.0),
        ("read_ns", "read_time_seconds_total", 1e9),
        ("resid_cnt", "residual_total", 1.0),
        ("write_byte_cnt", "written_bytes_total", 1.0),
        ("write_cnt", "writes_completed_total", 1.0),
        ("write_ns", "write_time_seconds_total", 1e9),
    ];
    // `st0a`, `nst0` and the like are other ways to use `st0`.
    let mut tapes = items(folder, "st");
    tapes.retain(|tape| tape.name[2..].bytes().all(|byte| byte.is_ascii_digit()));
    let push = &mut pusher("node_tape_", catalog, out);
    for tape in &tapes {
        for (file, name, per_unit) in FILES {
            let value = number(&tape.path.join("stats").join(file), buffer);
            let value = value.map(|value| value / per_unit);
            push(name, &[("device", &tape.name)], value.as_ref());
        }
    }
    !tapes.is_empty()
}
