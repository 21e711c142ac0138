//! Every reading with its names: one table, and nothing else in this crate spells a metric's name.
//!
//! A row reads: kind, unit, qbus name, then in brackets what node_exporter calls it and what the
//! seed's collector calls it, then the help. Empty brackets keep the qbus name; `hidden` keeps the
//! reading off that set's page, where another row says the same already; `untyped` says that the
//! set gives it no type; a factor is followed by the unit that it leads to.

use std::borrow::Cow;

use crate::metric::{Metric, Names, Trend};

/// The names of one reading.
struct Row {
    qbus: Metric,
    node: Other,
    seed: Other,
}

/// What another set makes of a reading.
enum Other {
    Same,
    /// The name, and what to multiply the value by.
    Named(Metric, f64),
    Hidden,
}

macro_rules! metric {
    ($kind:ident $name:literal $unit:literal $help:literal) => {
        Metric {
            name: Cow::Borrowed($name),
            trend: Trend::$kind,
            unit: Cow::Borrowed($unit),
            help: Cow::Borrowed($help),
        }
    };
}

macro_rules! other {
    ($kind:ident $unit:literal $help:literal) => {
        Other::Same
    };
    ($kind:ident $unit:literal $help:literal hidden) => {
        Other::Hidden
    };
    ($kind:ident $unit:literal $help:literal $name:literal) => {
        other!($kind $unit $help $name * 1.0 $unit)
    };
    ($kind:ident $unit:literal $help:literal $name:literal untyped) => {
        other!(Untyped $unit $help $name * 1.0 $unit)
    };
    ($kind:ident $unit:literal $help:literal $name:literal
        untyped * $factor:literal $own_unit:literal) => {
        other!(Untyped $unit $help $name * $factor $own_unit)
    };
    ($kind:ident $unit:literal $help:literal $name:literal * $factor:literal $own_unit:literal) => {
        Other::Named(metric!($kind $name $own_unit $help), $factor)
    };
}

macro_rules! readings {
    ($(
        $reading:ident $kind:ident $unit:tt $qbus:literal [$($node:tt)*] [$($seed:tt)*] $help:tt;
    )*) => {
        /// What a source can read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "the table is one for all"))]
        pub(crate) enum Reading { $($reading,)* }

        static TABLE: &[Row] = &[$(Row {
            qbus: metric!($kind $qbus $unit $help),
            node: other!($kind $unit $help $($node)*),
            seed: other!($kind $unit $help $($seed)*),
        },)*];
    };
}

// One row, one line, or two.
#[rustfmt::skip]
readings! {
    CpuSeconds Counter "seconds" "qbus_host_cpu_seconds_total" [hidden] []
        "Time that all CPUs spent in each mode.";
    CpuGuestSeconds Counter "seconds" "qbus_host_cpu_guest_seconds_total" [hidden] []
        "Time that all CPUs spent running guests, which the modes user and nice include.";
    CpuCoreSeconds Counter "seconds" "qbus_host_cpu_core_seconds_total"
        ["node_cpu_seconds_total"] [] "Time that a CPU spent in each mode.";
    CpuCoreGuestSeconds Counter "seconds" "qbus_host_cpu_core_guest_seconds_total"
        ["node_cpu_guest_seconds_total"] []
        "Time that a CPU spent running guests, which the modes user and nice include.";
    CpuUsage Gauge "ratio" "qbus_host_cpu_usage_ratio" [] ["system_cpu_percent" * 100.0 "percent"]
        "Share of all CPU time since the last tick that was neither idle nor waiting for I/O nor \
         stolen.";
    CpuCoreUsage Gauge "ratio" "qbus_host_cpu_core_usage_ratio"
        [] ["system_cpu_core_percent" * 100.0 "percent"]
        "Share of a CPU's time since the last tick that was neither idle nor waiting for I/O nor \
         stolen.";
    CpuFrequency Gauge "hertz" "qbus_host_cpu_frequency_hertz"
        [] ["system_cpu_frequency_mhz" * 1e-6 "megahertz"] "Mean current frequency of the CPUs.";
    CpuCoreFrequency Gauge "hertz" "qbus_host_cpu_core_frequency_hertz"
        ["node_cpu_scaling_frequency_hertz"] [] "Current frequency of a CPU.";
    CpusOnline Gauge "" "qbus_host_cpus_online" [] [] "CPUs that are online.";

    ContextSwitches Counter "" "qbus_host_context_switches_total" ["node_context_switches_total"] []
        "Context switches.";
    Forks Counter "" "qbus_host_forks_total" ["node_forks_total"] []
        "Processes and threads that were started.";
    Interrupts Counter "" "qbus_host_interrupts_total" ["node_intr_total"] [] "Interrupts served.";
    SoftInterrupts Counter "" "qbus_host_soft_interrupts_total" [] [] "Soft interrupts served.";
    BootTime Gauge "seconds" "qbus_host_boot_time_seconds" ["node_boot_time_seconds"] []
        "When the machine started, in seconds since 1970.";
    ProcsRunning Gauge "" "qbus_host_procs_running" ["node_procs_running"] []
        "Threads that run or are ready to.";
    ProcsBlocked Gauge "" "qbus_host_procs_blocked" ["node_procs_blocked"] []
        "Threads that wait for I/O.";

    MemoryTotal Gauge "bytes" "qbus_host_memory_total_bytes"
        ["node_memory_MemTotal_bytes"] ["system_memory_total_bytes"] "Memory of the machine.";
    MemoryAvailable Gauge "bytes" "qbus_host_memory_available_bytes"
        ["node_memory_MemAvailable_bytes"] ["system_memory_available_bytes"]
        "Memory that programs can get without swapping.";
    MemoryFree Gauge "bytes" "qbus_host_memory_free_bytes" ["node_memory_MemFree_bytes"] []
        "Memory that nothing uses.";
    MemoryUsed Gauge "bytes" "qbus_host_memory_used_bytes" [] ["system_memory_used_bytes"]
        "Memory that is not available.";
    MemoryUsedRatio Gauge "ratio" "qbus_host_memory_used_ratio"
        [] ["system_memory_percent" * 100.0 "percent"] "Share of the memory that is not available.";
    SwapTotal Gauge "bytes" "qbus_host_swap_total_bytes" ["node_memory_SwapTotal_bytes"] []
        "Swap space.";
    SwapFree Gauge "bytes" "qbus_host_swap_free_bytes" ["node_memory_SwapFree_bytes"] []
        "Swap space that nothing uses.";
    SwapUsed Gauge "bytes" "qbus_host_swap_used_bytes" [] [] "Swap space in use.";

    MemoryCached Gauge "bytes" "qbus_host_memory_cached_bytes" ["node_memory_Cached_bytes"] []
        "Page cache, with shared memory.";
    MemoryBuffers Gauge "bytes" "qbus_host_memory_buffers_bytes" ["node_memory_Buffers_bytes"] []
        "Cache of raw block devices.";
    MemoryShmem Gauge "bytes" "qbus_host_memory_shmem_bytes" ["node_memory_Shmem_bytes"] []
        "Shared memory and tmpfs.";
    MemoryAnon Gauge "bytes" "qbus_host_memory_anon_bytes" ["node_memory_AnonPages_bytes"] []
        "Memory of processes that no file backs.";
    MemoryMapped Gauge "bytes" "qbus_host_memory_mapped_bytes" ["node_memory_Mapped_bytes"] []
        "Files mapped by processes.";
    MemoryActive Gauge "bytes" "qbus_host_memory_active_bytes" ["node_memory_Active_bytes"] []
        "Memory used recently.";
    MemoryInactive Gauge "bytes" "qbus_host_memory_inactive_bytes" ["node_memory_Inactive_bytes"] []
        "Memory not used recently, the first to be reclaimed.";
    MemoryDirty Gauge "bytes" "qbus_host_memory_dirty_bytes" ["node_memory_Dirty_bytes"] []
        "Memory that waits to be written to disk.";
    MemoryWriteback Gauge "bytes" "qbus_host_memory_writeback_bytes"
        ["node_memory_Writeback_bytes"] [] "Memory being written to disk.";
    MemorySlabReclaimable Gauge "bytes" "qbus_host_memory_slab_reclaimable_bytes"
        ["node_memory_SReclaimable_bytes"] [] "Kernel memory that can be reclaimed.";
    MemorySlabUnreclaimable Gauge "bytes" "qbus_host_memory_slab_unreclaimable_bytes"
        ["node_memory_SUnreclaim_bytes"] [] "Kernel memory that can't be reclaimed.";
    MemoryPageTables Gauge "bytes" "qbus_host_memory_page_tables_bytes"
        ["node_memory_PageTables_bytes"] [] "Page tables.";
    MemoryKernelStack Gauge "bytes" "qbus_host_memory_kernel_stack_bytes"
        ["node_memory_KernelStack_bytes"] [] "Kernel stacks.";
    MemoryMlocked Gauge "bytes" "qbus_host_memory_mlocked_bytes" ["node_memory_Mlocked_bytes"] []
        "Memory locked by processes.";
    MemoryCommitted Gauge "bytes" "qbus_host_memory_committed_bytes"
        ["node_memory_Committed_AS_bytes"] [] "Memory promised to processes.";
    MemoryCommitLimit Gauge "bytes" "qbus_host_memory_commit_limit_bytes"
        ["node_memory_CommitLimit_bytes"] [] "Memory that can be promised.";
    MemorySwapCached Gauge "bytes" "qbus_host_memory_swap_cached_bytes"
        ["node_memory_SwapCached_bytes"] [] "Memory that is in swap as well.";
    HugePages Gauge "" "qbus_host_huge_pages" ["node_memory_HugePages_Total"] []
        "Huge pages set aside.";
    HugePagesFree Gauge "" "qbus_host_huge_pages_free" ["node_memory_HugePages_Free"] []
        "Huge pages not in use.";
    HugePageSize Gauge "bytes" "qbus_host_huge_page_size_bytes"
        ["node_memory_Hugepagesize_bytes"] [] "Size of a huge page.";

    PageFaults Counter "" "qbus_host_page_faults_total" ["node_vmstat_pgfault" untyped] []
        "Page faults, the major ones included.";
    MajorPageFaults Counter "" "qbus_host_major_page_faults_total"
        ["node_vmstat_pgmajfault" untyped] [] "Page faults that had to read from disk.";
    PageInBytes Counter "bytes" "qbus_host_page_in_bytes_total"
        ["node_vmstat_pgpgin" untyped * 0.0009765625 "kibibytes"] []
        "Bytes read from disk into memory.";
    PageOutBytes Counter "bytes" "qbus_host_page_out_bytes_total"
        ["node_vmstat_pgpgout" untyped * 0.0009765625 "kibibytes"] []
        "Bytes written from memory to disk.";
    SwapInPages Counter "pages" "qbus_host_swap_in_pages_total" ["node_vmstat_pswpin" untyped] []
        "Pages read from swap.";
    SwapOutPages Counter "pages" "qbus_host_swap_out_pages_total" ["node_vmstat_pswpout" untyped] []
        "Pages written to swap.";
    OomKills Counter "" "qbus_host_oom_kills_total" ["node_vmstat_oom_kill" untyped] []
        "Processes killed for want of memory.";

    Load1 Gauge "" "qbus_host_load1" ["node_load1"] [] "Load average of one minute.";
    Load5 Gauge "" "qbus_host_load5" ["node_load5"] [] "Load average of five minutes.";
    Load15 Gauge "" "qbus_host_load15" ["node_load15"] [] "Load average of fifteen minutes.";

    PressureCpuWaiting Counter "seconds" "qbus_host_pressure_cpu_waiting_seconds_total"
        ["node_pressure_cpu_waiting_seconds_total"] []
        "Time in which some thread waited for a CPU.";
    PressureMemoryWaiting Counter "seconds" "qbus_host_pressure_memory_waiting_seconds_total"
        ["node_pressure_memory_waiting_seconds_total"] []
        "Time in which some thread waited for memory.";
    PressureMemoryStalled Counter "seconds" "qbus_host_pressure_memory_stalled_seconds_total"
        ["node_pressure_memory_stalled_seconds_total"] []
        "Time in which every thread waited for memory.";
    PressureIoWaiting Counter "seconds" "qbus_host_pressure_io_waiting_seconds_total"
        ["node_pressure_io_waiting_seconds_total"] [] "Time in which some thread waited for I/O.";
    PressureIoStalled Counter "seconds" "qbus_host_pressure_io_stalled_seconds_total"
        ["node_pressure_io_stalled_seconds_total"] [] "Time in which every thread waited for I/O.";
    PressureIrqStalled Counter "seconds" "qbus_host_pressure_irq_stalled_seconds_total"
        ["node_pressure_irq_stalled_seconds_total"] []
        "Time in which interrupts kept every thread from running.";

    OpenFiles Gauge "" "qbus_host_open_files" ["node_filefd_allocated"] []
        "Open files of the whole machine.";
    OpenFilesMax Gauge "" "qbus_host_open_files_max" ["node_filefd_maximum"] []
        "Files that can be open at once.";

    DiskReads Counter "" "qbus_host_disk_reads_completed_total"
        ["node_disk_reads_completed_total"] [] "Reads that a disk completed.";
    DiskReadsMerged Counter "" "qbus_host_disk_reads_merged_total"
        ["node_disk_reads_merged_total"] [] "Reads that were merged with others.";
    DiskReadBytes Counter "bytes" "qbus_host_disk_read_bytes_total"
        ["node_disk_read_bytes_total"] [] "Bytes read from a disk.";
    DiskReadTime Counter "seconds" "qbus_host_disk_read_time_seconds_total"
        ["node_disk_read_time_seconds_total"] [] "Time that all reads of a disk took together.";
    DiskWrites Counter "" "qbus_host_disk_writes_completed_total"
        ["node_disk_writes_completed_total"] [] "Writes that a disk completed.";
    DiskWritesMerged Counter "" "qbus_host_disk_writes_merged_total"
        ["node_disk_writes_merged_total"] [] "Writes that were merged with others.";
    DiskWrittenBytes Counter "bytes" "qbus_host_disk_written_bytes_total"
        ["node_disk_written_bytes_total"] [] "Bytes written to a disk.";
    DiskWriteTime Counter "seconds" "qbus_host_disk_write_time_seconds_total"
        ["node_disk_write_time_seconds_total"] [] "Time that all writes of a disk took together.";
    DiskIoNow Gauge "" "qbus_host_disk_io_now" ["node_disk_io_now"] []
        "Operations under way on a disk.";
    DiskIoTime Counter "seconds" "qbus_host_disk_io_time_seconds_total"
        ["node_disk_io_time_seconds_total"] [] "Time in which a disk had something to do.";
    DiskIoTimeWeighted Counter "seconds" "qbus_host_disk_io_time_weighted_seconds_total"
        ["node_disk_io_time_weighted_seconds_total"] []
        "Time in which a disk had something to do, times the operations under way.";
    DiskDiscards Counter "" "qbus_host_disk_discards_completed_total"
        ["node_disk_discards_completed_total"] [] "Discards that a disk completed.";
    DiskDiscardedBytes Counter "bytes" "qbus_host_disk_discarded_bytes_total"
        ["node_disk_discarded_sectors_total" * 0.001953125 "sectors"] []
        "Bytes discarded on a disk.";
    DiskDiscardsMerged Counter "" "qbus_host_disk_discards_merged_total"
        ["node_disk_discards_merged_total"] [] "Discards that were merged with others.";
    DiskDiscardTime Counter "seconds" "qbus_host_disk_discard_time_seconds_total"
        ["node_disk_discard_time_seconds_total"] []
        "Time that all discards of a disk took together.";
    DiskFlushes Counter "" "qbus_host_disk_flush_requests_total"
        ["node_disk_flush_requests_total"] [] "Flushes that a disk completed.";
    DiskFlushTime Counter "seconds" "qbus_host_disk_flush_requests_time_seconds_total"
        ["node_disk_flush_requests_time_seconds_total"] []
        "Time that all flushes of a disk took together.";

    FilesystemSize Gauge "bytes" "qbus_host_filesystem_size_bytes" ["node_filesystem_size_bytes"] []
        "Size of a file system.";
    FilesystemFree Gauge "bytes" "qbus_host_filesystem_free_bytes" ["node_filesystem_free_bytes"] []
        "Free space of a file system, with what is reserved for root.";
    FilesystemAvailable Gauge "bytes" "qbus_host_filesystem_avail_bytes"
        ["node_filesystem_avail_bytes"] [] "Free space of a file system that any user can have.";
    FilesystemFiles Gauge "" "qbus_host_filesystem_files" ["node_filesystem_files"] []
        "Inodes of a file system.";
    FilesystemFilesFree Gauge "" "qbus_host_filesystem_files_free" ["node_filesystem_files_free"] []
        "Free inodes of a file system.";
    FilesystemReadonly Gauge "" "qbus_host_filesystem_readonly" ["node_filesystem_readonly"] []
        "Whether a file system can only be read (1).";
    FilesystemError Gauge "" "qbus_host_filesystem_device_error" ["node_filesystem_device_error"] []
        "Whether a file system failed to answer, or hangs (1).";

    NetworkReceiveBytes Counter "bytes" "qbus_host_network_receive_bytes_total"
        ["node_network_receive_bytes_total"] [] "Bytes received.";
    NetworkReceivePackets Counter "" "qbus_host_network_receive_packets_total"
        ["node_network_receive_packets_total"] [] "Packets received.";
    NetworkReceiveErrors Counter "" "qbus_host_network_receive_errs_total"
        ["node_network_receive_errs_total"] [] "Packets received damaged.";
    NetworkReceiveDrops Counter "" "qbus_host_network_receive_drop_total"
        ["node_network_receive_drop_total"] [] "Packets received and dropped.";
    NetworkReceiveFifo Counter "" "qbus_host_network_receive_fifo_total"
        ["node_network_receive_fifo_total"] [] "Overruns of a receive queue.";
    NetworkReceiveFrame Counter "" "qbus_host_network_receive_frame_total"
        ["node_network_receive_frame_total"] [] "Packets received with a framing error.";
    NetworkReceiveCompressed Counter "" "qbus_host_network_receive_compressed_total"
        ["node_network_receive_compressed_total"] [] "Compressed packets received.";
    NetworkReceiveMulticast Counter "" "qbus_host_network_receive_multicast_total"
        ["node_network_receive_multicast_total"] [] "Multicast packets received.";
    NetworkTransmitBytes Counter "bytes" "qbus_host_network_transmit_bytes_total"
        ["node_network_transmit_bytes_total"] [] "Bytes sent.";
    NetworkTransmitPackets Counter "" "qbus_host_network_transmit_packets_total"
        ["node_network_transmit_packets_total"] [] "Packets sent.";
    NetworkTransmitErrors Counter "" "qbus_host_network_transmit_errs_total"
        ["node_network_transmit_errs_total"] [] "Packets that could not be sent.";
    NetworkTransmitDrops Counter "" "qbus_host_network_transmit_drop_total"
        ["node_network_transmit_drop_total"] [] "Packets dropped before they were sent.";
    NetworkTransmitFifo Counter "" "qbus_host_network_transmit_fifo_total"
        ["node_network_transmit_fifo_total"] [] "Overruns of a send queue.";
    NetworkTransmitCollisions Counter "" "qbus_host_network_transmit_colls_total"
        ["node_network_transmit_colls_total"] [] "Collisions.";
    NetworkTransmitCarrier Counter "" "qbus_host_network_transmit_carrier_total"
        ["node_network_transmit_carrier_total"] [] "Losses of the carrier.";
    NetworkTransmitCompressed Counter "" "qbus_host_network_transmit_compressed_total"
        ["node_network_transmit_compressed_total"] [] "Compressed packets sent.";

    TcpEstablished Gauge "" "qbus_host_tcp_connections_established"
        ["node_netstat_Tcp_CurrEstab" untyped] [] "TCP connections that are established.";
    TcpActiveOpens Counter "" "qbus_host_tcp_active_opens_total"
        ["node_netstat_Tcp_ActiveOpens" untyped] [] "TCP connections opened by this machine.";
    TcpPassiveOpens Counter "" "qbus_host_tcp_passive_opens_total"
        ["node_netstat_Tcp_PassiveOpens" untyped] [] "TCP connections opened by peers.";
    TcpReceivedSegments Counter "" "qbus_host_tcp_received_segments_total"
        ["node_netstat_Tcp_InSegs" untyped] [] "TCP segments received.";
    TcpSentSegments Counter "" "qbus_host_tcp_sent_segments_total"
        ["node_netstat_Tcp_OutSegs" untyped] [] "TCP segments sent, without retransmissions.";
    TcpRetransmittedSegments Counter "" "qbus_host_tcp_retransmitted_segments_total"
        ["node_netstat_Tcp_RetransSegs" untyped] [] "TCP segments sent again.";

    ThermalZone Gauge "celsius" "qbus_host_thermal_zone_celsius" ["node_thermal_zone_temp"] []
        "Temperature of a thermal zone.";
    SensorTemperature Gauge "celsius" "qbus_host_sensor_temperature_celsius"
        ["node_hwmon_temp_celsius"] [] "Temperature at a sensor.";
    SensorTemperatureMax Gauge "celsius" "qbus_host_sensor_temperature_max_celsius"
        ["node_hwmon_temp_max_celsius"] [] "Temperature that a sensor calls high.";
    SensorTemperatureCritical Gauge "celsius" "qbus_host_sensor_temperature_critical_celsius"
        ["node_hwmon_temp_crit_celsius"] [] "Temperature that a sensor calls critical.";

    Uname Gauge "" "qbus_host_uname_info" ["node_uname_info"] []
        "Kernel and name of the machine, as labels; the value is 1.";
    Os Gauge "" "qbus_host_os_info" ["node_os_info"] []
        "Operating system, as labels; the value is 1.";
    CpuModel Gauge "" "qbus_host_cpu_model_info" [] [] "CPU model, as labels; the value is 1.";
    CpuCores Gauge "" "qbus_host_cpu_physical_cores" [] [] "Physical CPU cores.";
    ProcessesByState Gauge "" "qbus_host_processes" ["node_processes_state"] []
        "Processes of the machine by state.";

    ProcessInstances Gauge "" "qbus_process_instances" [] []
        "Attached processes of this role and command.";
    ProcessCpuSeconds Counter "seconds" "qbus_process_cpu_seconds_total" [] [] "CPU time by mode.";
    ProcessCpuUsage Gauge "ratio" "qbus_process_cpu_usage_ratio"
        [] ["process_cpu_percent" * 100.0 "percent"]
        "CPU time since the last tick by elapsed time; 1 is one CPU.";
    ProcessResident Gauge "bytes" "qbus_process_resident_memory_bytes"
        [] ["process_memory_rss_bytes"] "Resident memory.";
    ProcessVirtual Gauge "bytes" "qbus_process_virtual_memory_bytes" [] ["process_memory_vms_bytes"]
        "Virtual memory.";
    ProcessSwap Gauge "bytes" "qbus_process_swap_bytes" [] [] "Memory that is swapped out.";
    ProcessThreads Gauge "" "qbus_process_threads" [] ["process_threads"] "Threads.";
    ProcessOpenFds Gauge "" "qbus_process_open_fds" [] [] "Open file descriptors.";
    ProcessMaxFds Gauge "" "qbus_process_max_fds" [] []
        "File descriptors that may be open; of several processes, the least.";
    ProcessContextSwitches Counter "" "qbus_process_context_switches_total" [] []
        "Context switches of all threads; those of threads too short-lived to be seen are missing.";
    ProcessPageFaults Counter "" "qbus_process_page_faults_total" [] []
        "Page faults; major ones had to read from disk.";
    ProcessReadBytes Counter "bytes" "qbus_process_read_bytes_total" [] []
        "Bytes that were read from storage on its behalf.";
    ProcessWrittenBytes Counter "bytes" "qbus_process_written_bytes_total" [] []
        "Bytes that it caused to be written to storage.";
    ProcessStart Gauge "seconds" "qbus_process_start_time_seconds" [] []
        "When it started, in seconds since 1970; of several processes, the first.";

    CgroupAttached Gauge "" "qbus_cgroup_attached_processes" [] []
        "Attached processes of a control group.";
    CgroupMemoryUsage Gauge "bytes" "qbus_cgroup_memory_usage_bytes" [] []
        "Memory charged to a control group, its page cache included.";
    CgroupMemoryWorkingSet Gauge "bytes" "qbus_cgroup_memory_working_set_bytes" [] []
        "Memory charged to a control group, without the inactive page cache.";
    CgroupMemoryPeak Gauge "bytes" "qbus_cgroup_memory_peak_bytes" [] []
        "The most memory that was ever charged to a control group.";
    CgroupMemoryLimit Gauge "bytes" "qbus_cgroup_memory_limit_bytes" [] []
        "Memory that a control group may have, by its own limit or a tighter one above; absent \
         without limit.";
    CgroupMemoryHigh Gauge "bytes" "qbus_cgroup_memory_high_bytes" [] []
        "Memory beyond which a control group is slowed down.";
    CgroupMemoryAnon Gauge "bytes" "qbus_cgroup_memory_anon_bytes" [] []
        "Memory of a control group that no file backs.";
    CgroupMemoryFile Gauge "bytes" "qbus_cgroup_memory_file_bytes" [] []
        "Page cache of a control group, with shared memory.";
    CgroupMemoryKernel Gauge "bytes" "qbus_cgroup_memory_kernel_bytes" [] []
        "Kernel memory of a control group.";
    CgroupMemoryShmem Gauge "bytes" "qbus_cgroup_memory_shmem_bytes" [] []
        "Shared memory and tmpfs of a control group.";
    CgroupMemoryEvents Counter "" "qbus_cgroup_memory_events_total" [] []
        "Times that a control group came below or beyond a limit, ran out of memory or had \
         processes killed.";
    CgroupPageFaults Counter "" "qbus_cgroup_page_faults_total" [] []
        "Page faults of a control group, the major ones included.";
    CgroupMajorPageFaults Counter "" "qbus_cgroup_major_page_faults_total" [] []
        "Page faults of a control group that had to read from disk.";
    CgroupSwapUsage Gauge "bytes" "qbus_cgroup_swap_usage_bytes" [] []
        "Swap space of a control group.";
    CgroupSwapLimit Gauge "bytes" "qbus_cgroup_swap_limit_bytes" [] []
        "Swap space that a control group may have.";
    CgroupCpuSeconds Counter "seconds" "qbus_cgroup_cpu_seconds_total" [] []
        "CPU time of a control group by mode.";
    CgroupCpuLimit Gauge "cpus" "qbus_cgroup_cpu_limit_cpus" [] []
        "CPU time by elapsed time that a control group may have, by its own quota or a tighter one \
         above; absent without quota.";
    CgroupCpuPeriods Counter "" "qbus_cgroup_cpu_periods_total" [] []
        "Periods of the CPU quota in which a control group ran.";
    CgroupCpuThrottledPeriods Counter "" "qbus_cgroup_cpu_throttled_periods_total" [] []
        "Periods in which a control group used its CPU quota up.";
    CgroupCpuThrottledSeconds Counter "seconds" "qbus_cgroup_cpu_throttled_seconds_total" [] []
        "Time for which a control group was kept from running since its CPU quota was used up.";
    CgroupIoReadBytes Counter "bytes" "qbus_cgroup_io_read_bytes_total" [] []
        "Bytes that a control group read from a device.";
    CgroupIoWrittenBytes Counter "bytes" "qbus_cgroup_io_written_bytes_total" [] []
        "Bytes that a control group wrote to a device.";
    CgroupIoReads Counter "" "qbus_cgroup_io_reads_total" [] []
        "Reads of a control group from a device.";
    CgroupIoWrites Counter "" "qbus_cgroup_io_writes_total" [] []
        "Writes of a control group to a device.";
    CgroupIoDiscardedBytes Counter "bytes" "qbus_cgroup_io_discarded_bytes_total" [] []
        "Bytes that a control group discarded on a device.";
    CgroupIoDiscards Counter "" "qbus_cgroup_io_discards_total" [] []
        "Discards of a control group on a device.";
    CgroupPids Gauge "" "qbus_cgroup_pids" [] [] "Processes and threads of a control group.";
    CgroupPidsLimit Gauge "" "qbus_cgroup_pids_limit" [] []
        "Processes and threads that a control group may have.";
    CgroupPressureCpuWaiting Counter "seconds" "qbus_cgroup_pressure_cpu_waiting_seconds_total"
        [] [] "Time in which some thread of a control group waited for a CPU.";
    CgroupPressureCpuStalled Counter "seconds" "qbus_cgroup_pressure_cpu_stalled_seconds_total"
        [] [] "Time in which every thread of a control group waited for a CPU.";
    CgroupPressureMemoryWaiting Counter "seconds"
        "qbus_cgroup_pressure_memory_waiting_seconds_total" [] []
        "Time in which some thread of a control group waited for memory.";
    CgroupPressureMemoryStalled Counter "seconds"
        "qbus_cgroup_pressure_memory_stalled_seconds_total" [] []
        "Time in which every thread of a control group waited for memory.";
    CgroupPressureIoWaiting Counter "seconds" "qbus_cgroup_pressure_io_waiting_seconds_total" [] []
        "Time in which some thread of a control group waited for I/O.";
    CgroupPressureIoStalled Counter "seconds" "qbus_cgroup_pressure_io_stalled_seconds_total" [] []
        "Time in which every thread of a control group waited for I/O.";

    GpuUp Gauge "" "qbus_gpu_up" [] []
        "Whether a GPU answers (1), or is lost or needs a reset (0).";
    GpuInfo Gauge "" "qbus_gpu_info" [] []
        "Name, bus and driver of a GPU, as labels; the value is 1.";
    GpuMemoryTotal Gauge "bytes" "qbus_gpu_memory_total_bytes" [] ["gpu_memory_total_bytes"]
        "Memory of a GPU.";
    GpuMemoryUsed Gauge "bytes" "qbus_gpu_memory_used_bytes" [] ["gpu_memory_allocated_bytes"]
        "Memory of a GPU that is allocated.";
    GpuMemoryFree Gauge "bytes" "qbus_gpu_memory_free_bytes" [] [] "Memory of a GPU that is free.";
    GpuMemoryReserved Gauge "bytes" "qbus_gpu_memory_reserved_bytes" [] []
        "Memory of a GPU that driver and firmware keep.";
    GpuUtilization Gauge "ratio" "qbus_gpu_utilization_ratio"
        [] ["gpu_utilization_percent" * 100.0 "percent"]
        "Share of the driver's last sample period in which at least one kernel ran, which says \
         nothing of how much of the GPU it used.";
    GpuMemoryUtilization Gauge "ratio" "qbus_gpu_memory_utilization_ratio" [] []
        "Share of the driver's last sample period in which memory was read or written.";
    GpuTemperature Gauge "celsius" "qbus_gpu_temperature_celsius" [] ["gpu_temperature_celsius"]
        "Temperature of a GPU.";
    GpuPower Gauge "watts" "qbus_gpu_power_watts" [] ["gpu_power_watts"] "Power that a GPU draws.";
    GpuPowerLimit Gauge "watts" "qbus_gpu_power_limit_watts" [] [] "Power that a GPU may draw.";
    GpuEnergy Counter "joules" "qbus_gpu_energy_joules_total" [] []
        "Energy that a GPU has used since the driver was loaded.";
    GpuClock Gauge "hertz" "qbus_gpu_clock_hertz" [] [] "Current clock of a GPU.";
    GpuFanSpeed Gauge "ratio" "qbus_gpu_fan_speed_ratio" [] []
        "Intended speed of a fan by its rated speed.";
    GpuPerformanceState Gauge "" "qbus_gpu_performance_state" [] []
        "Performance state of a GPU, from 0, the fastest, to 15.";
    GpuThrottled Gauge "" "qbus_gpu_throttle_active" [] []
        "Whether a GPU is slowed down for this reason (1).";
    GpuThrottledSeconds Counter "seconds" "qbus_gpu_throttle_seconds_total" [] []
        "Time for which a GPU was slowed down for this reason.";
    GpuEccErrors Counter "" "qbus_gpu_ecc_errors_total" [] []
        "Memory errors of a GPU: of its whole life (aggregate), or since the driver was loaded \
         (volatile).";
    GpuPcieTransmitBytes Counter "bytes" "qbus_gpu_pcie_transmit_bytes_total" [] []
        "Bytes that a GPU sent over PCIe.";
    GpuPcieReceiveBytes Counter "bytes" "qbus_gpu_pcie_receive_bytes_total" [] []
        "Bytes that a GPU received over PCIe.";
    GpuPcieGeneration Gauge "" "qbus_gpu_pcie_link_generation" [] []
        "Current PCIe generation of a GPU's link.";
    GpuPcieWidth Gauge "" "qbus_gpu_pcie_link_lanes" [] [] "Current PCIe lanes of a GPU's link.";
    GpuPcieReplays Counter "" "qbus_gpu_pcie_replays_total" [] []
        "Packets that a GPU sent over PCIe again.";
    GpuEncoderUtilization Gauge "ratio" "qbus_gpu_encoder_utilization_ratio" [] []
        "Share of time in which the video encoder ran.";
    GpuDecoderUtilization Gauge "ratio" "qbus_gpu_decoder_utilization_ratio" [] []
        "Share of time in which the video decoder ran.";
    GpuProcesses Gauge "" "qbus_gpu_processes" [] []
        "Processes that use a GPU or a MIG device, attached or not.";
    GpuProcessMemory Gauge "bytes" "qbus_gpu_process_memory_bytes" [] []
        "Memory of a GPU that attached processes of this role and command use.";
    GpuMemoryTemperature Gauge "celsius" "qbus_gpu_memory_temperature_celsius" [] []
        "Temperature of a GPU's memory.";
    GpuXidErrors Counter "" "qbus_gpu_xid_errors_total" [] []
        "Errors of a GPU that the driver reported by number (XID) since the sampler began to \
         listen; the numbers that alerts ask for are there from the start.";
    GpuLastXid Gauge "" "qbus_gpu_last_xid" [] []
        "Number of the last error (XID) of a GPU since the sampler began to listen; 0 where there \
         was none.";
    GpuRemappedRows Counter "" "qbus_gpu_remapped_rows_total" [] []
        "Rows of a GPU's memory that were replaced by spare ones, by the kind of error.";
    GpuRemappingPending Gauge "" "qbus_gpu_row_remapping_pending" [] []
        "Whether rows of a GPU's memory wait for a reset to be replaced (1).";
    GpuRemappingFailed Gauge "" "qbus_gpu_row_remapping_failed" [] []
        "Whether a row of a GPU's memory could not be replaced (1): the GPU should be.";
    GpuRetiredPages Counter "" "qbus_gpu_retired_pages_total" [] []
        "Pages of a GPU's memory that are used no more, by the kind of error; GPUs that remap rows \
         have none.";
    GpuRetirementPending Gauge "" "qbus_gpu_page_retirement_pending" [] []
        "Whether pages of a GPU's memory wait for a restart to be retired (1).";
    GpuNvlinks Gauge "" "qbus_gpu_nvlinks_active" [] [] "NVLinks of a GPU that are up.";
    GpuNvlinkErrors Counter "" "qbus_gpu_nvlink_errors_total" [] []
        "Errors of all NVLinks of a GPU, by kind.";
    GpuProcessSm Gauge "ratio" "qbus_gpu_process_sm_utilization_ratio" [] []
        "Share of the driver's last sample period in which kernels of attached processes of this \
         role and command ran.";
    GpuProcessMemoryUse Gauge "ratio" "qbus_gpu_process_memory_utilization_ratio" [] []
        "Share of the driver's last sample period in which attached processes of this role and \
         command read or wrote memory.";
    GpuGraphicsActive Gauge "ratio" "qbus_gpu_graphics_active_ratio" [] []
        "Share of time in which any warp was active on an SM (GPM).";
    GpuSmActive Gauge "ratio" "qbus_gpu_sm_active_ratio" [] []
        "Share of time in which an SM had a warp, mean of all SMs (GPM).";
    GpuSmOccupancy Gauge "ratio" "qbus_gpu_sm_occupancy_ratio" [] []
        "Active warps by the most that there can be, mean of all SMs (GPM).";
    GpuTensorActive Gauge "ratio" "qbus_gpu_tensor_active_ratio" [] []
        "Share of time in which SMs did tensor operations (GPM).";
    GpuFp64Active Gauge "ratio" "qbus_gpu_fp64_active_ratio" [] []
        "Share of time in which SMs did operations of 64-bit floats (GPM).";
    GpuFp32Active Gauge "ratio" "qbus_gpu_fp32_active_ratio" [] []
        "Share of time in which SMs did operations of 32-bit floats (GPM).";
    GpuFp16Active Gauge "ratio" "qbus_gpu_fp16_active_ratio" [] []
        "Share of time in which SMs did operations of 16-bit floats (GPM).";
    GpuDramActive Gauge "ratio" "qbus_gpu_dram_active_ratio" [] []
        "Share of the bandwidth of the memory in use (GPM).";
    GpuNvlinkTransmitRate Gauge "" "qbus_gpu_nvlink_transmit_bytes_per_second" [] []
        "Bytes a second that a GPU sent over all NVLinks (GPM).";
    GpuNvlinkReceiveRate Gauge "" "qbus_gpu_nvlink_receive_bytes_per_second" [] []
        "Bytes a second that a GPU received over all NVLinks (GPM).";
    GpuPcieTransmitRate Gauge "" "qbus_gpu_pcie_transmit_bytes_per_second" [] []
        "Bytes a second that a GPU sent over PCIe (GPM).";
    GpuPcieReceiveRate Gauge "" "qbus_gpu_pcie_receive_bytes_per_second" [] []
        "Bytes a second that a GPU received over PCIe (GPM).";
    GpuMigInfo Gauge "" "qbus_gpu_mig_info" [] []
        "Profile and place of a MIG device, as labels; the value is 1.";
    GpuMigMemoryTotal Gauge "bytes" "qbus_gpu_mig_memory_total_bytes" [] []
        "Memory of a MIG device, which is part of that of its GPU.";
    GpuMigMemoryUsed Gauge "bytes" "qbus_gpu_mig_memory_used_bytes" [] []
        "Memory of a MIG device that is allocated.";
    GpuMigMemoryFree Gauge "bytes" "qbus_gpu_mig_memory_free_bytes" [] []
        "Memory of a MIG device that is free.";
}

impl Reading {
    /// Its metric in that set and the factor of its values; `None` where the set leaves it out.
    pub(crate) fn published(self, names: Names) -> Option<(&'static Metric, f64)> {
        TABLE[self as usize].published(names)
    }
}

impl Row {
    fn published(&'static self, names: Names) -> Option<(&'static Metric, f64)> {
        let other = match names {
            Names::Qbus => &Other::Same,
            Names::Node => &self.node,
            Names::Seed => &self.seed,
        };
        match other {
            Other::Same => Some((&self.qbus, 1.0)),
            Other::Named(family, factor) => Some((family, *factor)),
            Other::Hidden => None,
        }
    }
}

/// Every metric that a sampler can hand over under these names.
pub fn metrics(names: Names) -> impl Iterator<Item = &'static Metric> {
    TABLE
        .iter()
        .filter_map(move |row| row.published(names))
        .map(|(family, _)| family)
}

#[cfg(test)]
mod tests;
