//! File systems, network services and devices that few machines have: over trees of the kernel's
//! files.

use std::time::Instant;

use qbus_sampler::{Names, News, Source, Trend};

use crate::support::{Page, sampler, tick, write_tree};

/// A page of one source over these files, under the names of node_exporter.
fn page(source: Source, files: &[(&str, &str)]) -> Page {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), files);
    let mut sampler = sampler(&[source], |options| {
        options.names = Names::Node;
        options.roots.proc = dir.path().join("proc");
        options.roots.sys = dir.path().join("sys");
    });
    tick(&mut sampler, Instant::now(), &[])
}

/// Each series has its value, and there are no others but those that say how the source fared.
#[track_caller]
fn check(page: &Page, expected: &[(&str, f64)]) {
    for (key, value) in expected {
        assert_eq!(page.value(&format!("node_{key}")), *value, "{key}");
    }
    let own = ["node_scrape", "node_exporter"];
    let others = page
        .samples
        .keys()
        .filter(|key| !own.iter().any(|own| key.starts_with(own)));
    assert_eq!(others.count(), expected.len(), "{page:#?}");
}

#[test]
fn zfs() {
    let head = "7 1 0x01 21 5712 73163810083184 309946154984654\nname type data\n";
    let io = "12 3 0x00 1 80 1 2\nnread nwritten\n1884160 3206144\n";
    let set = format!("{head}dataset_name 7 tank/home\nwrites 4 4\n");
    let page = page(
        Source::Zfs,
        &[
            (
                "proc/spl/kstat/zfs/arcstats",
                &format!("{head}hits 4 8772612\nname 7 text\n"),
            ),
            (
                "proc/spl/kstat/zfs/fm",
                &format!("{head}erpt-dropped 4 18\n"),
            ),
            ("proc/spl/kstat/zfs/tank/io", io),
            ("proc/spl/kstat/zfs/tank/objset-0x36", &set),
            ("proc/spl/kstat/zfs/tank/state", "DEGRADED\n"),
        ],
    );
    let state = |state: &str| format!("zfs_zpool_state{{zpool=\"tank\",state={state:?}}}");
    check(
        &page,
        &[
            ("zfs_arc_hits", 8_772_612.0),
            ("zfs_fm_erpt_dropped", 18.0),
            ("zfs_zpool_nread{zpool=\"tank\"}", 1_884_160.0),
            ("zfs_zpool_nwritten{zpool=\"tank\"}", 3_206_144.0),
            (
                "zfs_zpool_dataset_writes{zpool=\"tank\",dataset=\"tank/home\"}",
                4.0,
            ),
            (&state("degraded"), 1.0),
            (&state("online"), 0.0),
            (&state("faulted"), 0.0),
            (&state("offline"), 0.0),
            (&state("removed"), 0.0),
            (&state("unavail"), 0.0),
        ],
    );
    assert_eq!(page.trends["node_zfs_arc_hits"], Trend::Untyped);
    assert_eq!(page.trends["node_zfs_zpool_state"], Trend::Gauge);
}

#[test]
fn xfs() {
    let stats = "extent_alloc 1 872 2 3\nabt 0\nrw 28 7\ntrans 4 40 0\nig 5 1\n";
    let page = page(
        Source::Xfs,
        &[
            ("sys/fs/xfs/stats/stats", "rw 1 1\n"),
            ("sys/fs/xfs/sda1/stats/stats", stats),
        ],
    );
    let of = |name: &str| format!("xfs_{name}_total{{device=\"sda1\"}}");
    check(
        &page,
        &[
            (&of("extent_allocation_extents_allocated"), 1.0),
            (&of("extent_allocation_blocks_allocated"), 872.0),
            (&of("extent_allocation_extents_freed"), 2.0),
            (&of("extent_allocation_blocks_freed"), 3.0),
            (&of("allocation_btree_lookups"), 0.0),
            (&of("write_calls"), 28.0),
            (&of("read_calls"), 7.0),
            (&of("inode_operation_attempts"), 5.0),
            (&of("inode_operation_found"), 1.0),
        ],
    );
}

#[test]
fn btrfs() {
    let page = page(
        Source::Btrfs,
        &[
            ("sys/fs/btrfs/features/raid56", "1\n"),
            ("sys/fs/btrfs/u-1/label", "home\n"),
            ("sys/fs/btrfs/u-1/devices/sda/size", "20\n"),
            ("sys/fs/btrfs/u-1/devices/sdb/size", "20\n"),
            ("sys/fs/btrfs/u-1/devices/sdc/size", "20\n"),
            ("sys/fs/btrfs/u-1/allocation/global_rsv_size", "4096\n"),
            ("sys/fs/btrfs/u-1/allocation/data/bytes_reserved", "7\n"),
            (
                "sys/fs/btrfs/u-1/allocation/data/raid5/total_bytes",
                "300\n",
            ),
            ("sys/fs/btrfs/u-1/allocation/data/raid5/used_bytes", "100\n"),
        ],
    );
    let layout = "{uuid=\"u-1\",block_group_type=\"data\",mode=\"raid5\"}";
    check(
        &page,
        &[
            ("btrfs_info{uuid=\"u-1\",label=\"home\"}", 1.0),
            ("btrfs_global_rsv_size_bytes{uuid=\"u-1\"}", 4096.0),
            (
                "btrfs_device_size_bytes{uuid=\"u-1\",device=\"sda\"}",
                10_240.0,
            ),
            (
                "btrfs_device_size_bytes{uuid=\"u-1\",device=\"sdb\"}",
                10_240.0,
            ),
            (
                "btrfs_device_size_bytes{uuid=\"u-1\",device=\"sdc\"}",
                10_240.0,
            ),
            (
                "btrfs_reserved_bytes{uuid=\"u-1\",block_group_type=\"data\"}",
                7.0,
            ),
            (&format!("btrfs_size_bytes{layout}"), 300.0),
            (&format!("btrfs_used_bytes{layout}"), 100.0),
            (&format!("btrfs_allocation_ratio{layout}"), 1.5),
        ],
    );
}

#[test]
fn bcache() {
    let page = page(
        Source::Bcache,
        &[
            ("sys/fs/bcache/a-b/tree_depth", "1\n"),
            (
                "sys/fs/bcache/a-b/internal/btree_read_average_duration_us",
                "1305\n",
            ),
            ("sys/fs/bcache/a-b/bdev0/dirty_data", "1.5k\n"),
            ("sys/fs/bcache/a-b/bdev0/stats_total/cache_hits", "546\n"),
            (
                "sys/fs/bcache/a-b/bdev0/writeback_rate_debug",
                "rate: 1.1M/sec\nnext io: 17ms\n",
            ),
            ("sys/fs/bcache/a-b/cache0/written", "512\n"),
        ],
    );
    let backing = "{backing_device=\"bdev0\",uuid=\"a-b\"}";
    check(
        &page,
        &[
            ("bcache_tree_depth{uuid=\"a-b\"}", 1.0),
            (
                "bcache_btree_read_average_duration_seconds{uuid=\"a-b\"}",
                1305.0 / 1e9,
            ),
            (&format!("bcache_dirty_data_bytes{backing}"), 1524.0),
            (&format!("bcache_cache_hits_total{backing}"), 546.0),
            (&format!("bcache_writeback_rate{backing}"), 1_150_976.0),
            (
                "bcache_written_bytes_total{cache_device=\"cache0\",uuid=\"a-b\"}",
                512.0,
            ),
        ],
    );
}

#[test]
fn nfs_on_both_ends() {
    let client = "net 70 7 69 45\nrpc 12 3 15\nproc2 2 16 57\nproc4 3 98 51 54\nproc9 1 1\n";
    let asked = page(Source::Nfs, &[("proc/net/rpc/nfs", client)]);
    let request =
        |proto: &str, method: &str| format!("requests_total{{method={method:?},proto={proto:?}}}");
    check(
        &asked,
        &[
            ("nfs_packets_total{protocol=\"udp\"}", 7.0),
            ("nfs_packets_total{protocol=\"tcp\"}", 69.0),
            ("nfs_connections_total", 45.0),
            ("nfs_rpcs_total", 12.0),
            ("nfs_rpc_retransmissions_total", 3.0),
            ("nfs_rpc_authentication_refreshes_total", 15.0),
            (&format!("nfs_{}", request("2", "Null")), 16.0),
            (&format!("nfs_{}", request("2", "GetAttr")), 57.0),
            (&format!("nfs_{}", request("4", "Null")), 98.0),
            (&format!("nfs_{}", request("4", "Read")), 51.0),
            (&format!("nfs_{}", request("4", "Write")), 54.0),
        ],
    );
    let server = "rc 0 6 18622\nfh 1\nio 157286400 72864\nth 8 0\nra 32 0 0 0 0 0 0 0 0 0 0 9\n\
        net 972 55 917 1\nrpc 18628 3 1 2 0\nproc3 3 2 112 5\nproc4ops 5 0 0 0 1098 2\n";
    let served = page(Source::Nfsd, &[("proc/net/rpc/nfsd", server)]);
    check(
        &served,
        &[
            ("nfsd_reply_cache_hits_total", 0.0),
            ("nfsd_reply_cache_misses_total", 6.0),
            ("nfsd_reply_cache_nocache_total", 18_622.0),
            ("nfsd_file_handles_stale_total", 1.0),
            ("nfsd_disk_bytes_read_total", 157_286_400.0),
            ("nfsd_disk_bytes_written_total", 72_864.0),
            ("nfsd_server_threads", 8.0),
            ("nfsd_read_ahead_cache_size_blocks", 32.0),
            ("nfsd_read_ahead_cache_not_found_total", 9.0),
            ("nfsd_packets_total{proto=\"udp\"}", 55.0),
            ("nfsd_packets_total{proto=\"tcp\"}", 917.0),
            ("nfsd_connections_total", 1.0),
            ("nfsd_server_rpcs_total", 18_628.0),
            ("nfsd_rpc_errors_total{error=\"fmt\"}", 1.0),
            ("nfsd_rpc_errors_total{error=\"auth\"}", 2.0),
            ("nfsd_rpc_errors_total{error=\"cInt\"}", 0.0),
            (&format!("nfsd_{}", request("3", "GetAttr")), 112.0),
            (&format!("nfsd_{}", request("3", "SetAttr")), 5.0),
            (&format!("nfsd_{}", request("4", "Access")), 1098.0),
            (&format!("nfsd_{}", request("4", "Close")), 2.0),
        ],
    );
}

#[test]
fn virtual_servers() {
    let stats = " Total Incoming\n Conns Packets\n 16AA370 E33656E5 0 51D8C8883AB3 0\n";
    let table = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  \
        -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
        TCP  C0A80016:0CEA wlc\n  -> C0A85216:0CEA Tunnel 100 248 2\n\
        UDP  [2620:0000:0000:0000:0000:0000:0000:0001]:0050 sh\n\
          -> [2620:0000:0000:0000:0000:0000:0000:0002]:0050 Route 1 0 0\n\
        FWM  10001000 wlc\n  -> C0A8321A:0CEA Route 20 64 1\n";
    let page = page(
        Source::Ipvs,
        &[("proc/net/ip_vs_stats", stats), ("proc/net/ip_vs", table)],
    );
    let tcp = "local_address=\"192.168.0.22\",local_port=\"3306\",remote_address=\"192.168.82.22\",\
        remote_port=\"3306\",proto=\"TCP\"";
    let udp = "local_address=\"2620::1\",local_port=\"80\",remote_address=\"2620::2\",\
        remote_port=\"80\",proto=\"UDP\"";
    let marked = "local_port=\"0\",remote_address=\"192.168.50.26\",remote_port=\"3306\",\
        proto=\"FWM\",local_mark=\"10001000\"";
    check(
        &page,
        &[
            ("ipvs_connections_total", 23_765_872.0),
            ("ipvs_incoming_packets_total", 3_811_989_221.0),
            ("ipvs_outgoing_packets_total", 0.0),
            ("ipvs_incoming_bytes_total", 89_991_519_156_915.0),
            ("ipvs_outgoing_bytes_total", 0.0),
            (&format!("ipvs_backend_connections_active{{{tcp}}}"), 248.0),
            (&format!("ipvs_backend_connections_inactive{{{tcp}}}"), 2.0),
            (&format!("ipvs_backend_weight{{{tcp}}}"), 100.0),
            (&format!("ipvs_backend_connections_active{{{udp}}}"), 0.0),
            (&format!("ipvs_backend_connections_inactive{{{udp}}}"), 0.0),
            (&format!("ipvs_backend_weight{{{udp}}}"), 1.0),
            (
                &format!("ipvs_backend_connections_active{{{marked}}}"),
                64.0,
            ),
            (
                &format!("ipvs_backend_connections_inactive{{{marked}}}"),
                1.0,
            ),
            (&format!("ipvs_backend_weight{{{marked}}}"), 20.0),
        ],
    );
}

#[test]
fn adapters_and_tapes() {
    let host = "sys/class/fc_host/host0";
    let adapters = page(
        Source::FibreChannel,
        &[
            (&format!("{host}/speed"), "16 Gbit\n"),
            (&format!("{host}/port_name"), "0x1000e0071bce95f2\n"),
            (&format!("{host}/statistics/rx_frames"), "0x3\n"),
            (
                &format!("{host}/statistics/dumped_frames"),
                "0xffffffffffffffff\n",
            ),
        ],
    );
    let info = "{fc_host=\"host0\",speed=\"16 Gbit\",port_name=\"1000e0071bce95f2\"}";
    check(
        &adapters,
        &[
            (&format!("fibrechannel_info{info}"), 1.0),
            ("fibrechannel_rx_frames_total{fc_host=\"host0\"}", 3.0),
        ],
    );
    let tapes = page(
        Source::Tapes,
        &[
            ("sys/class/scsi_tape/st0/stats/in_flight", "1\n"),
            ("sys/class/scsi_tape/st0/stats/io_ns", "2500000000\n"),
            ("sys/class/scsi_tape/st0a/stats/in_flight", "1\n"),
            ("sys/class/scsi_tape/nst0/stats/in_flight", "1\n"),
        ],
    );
    check(
        &tapes,
        &[
            ("tape_io_now{device=\"st0\"}", 1.0),
            ("tape_io_time_seconds_total{device=\"st0\"}", 2.5),
        ],
    );
}

#[test]
fn a_machine_without_any_of_it_is_a_normal_one() {
    let sources = [
        Source::Zfs,
        Source::Xfs,
        Source::Btrfs,
        Source::Bcache,
        Source::Nfs,
        Source::Nfsd,
        Source::Ipvs,
        Source::FibreChannel,
        Source::Tapes,
    ];
    for source in sources {
        let page = page(source, &[("proc/x", ""), ("sys/x", "")]);
        let outcome = page.outcome(source.name());
        assert_eq!((outcome.samples, outcome.failures), (0, 0), "{page:#?}");
        assert!(matches!(outcome.news[..], [News::Absent(_)]), "{page:#?}");
    }
}
