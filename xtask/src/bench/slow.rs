//! A full backup onto a disk that is slow: a loop device whose writes the kernel holds back. Beside it, in turn: a copy,
//! another tool, and as many bytes as the node has, written directly.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::data::{Kind, Node, run as run_silently};
use super::ledger::Ledger;
use super::measure::{self, Sample, median};
use super::report::figure;
use super::tools::{Place, Tool, What, bytes_below, quoted};
use super::{eprint_line, shapes};

/// Where the first version of control groups takes limits for all processes.
const LIMIT: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";
/// Room on the disk, of which only what is written is taken.
const IMAGE_BYTES: u64 = 4_000_000_000;
/// A backup is measured against these.
const TOOLS: [Tool; 3] = [Tool::Highwater, Tool::Copy, Tool::Restic];

/// Why it can't be measured here; `None` where it can.
pub(super) fn obstacle() -> Result<Option<&'static str>> {
    let user = Command::new("id").arg("-u").output()?.stdout;
    if user.trim_ascii() != b"0" {
        return Ok(Some("only root may make a loop device"));
    }
    Ok((!Path::new(LIMIT).exists()).then_some("the kernel has no blkio.throttle.write_bps_device"))
}

/// A table with a row for each speed. The node is all shapes at once: RocksDB, SQLite and small files.
pub(super) fn run(options: &super::Options, ledger: &mut Ledger) -> Result<String> {
    let node = Node { kind: Kind::Raw, dir: shapes::make(options)? };
    let mb = bytes_below(&node.dir)? as f64 / 1e6;
    let mut text = format!(
        "A node of {mb:.0} MB. \"At best\" is the longer one of its stored bytes at that speed, and its processor time \
         on both cores.\n\n\
         | writes, MB/s | the node by `dd oflag=direct`, s | `cp -r` + `sync`, s | restic, s | highwater, s | \
         processor, s | peak, MiB | stored, MB | at best, s | to at best |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
    );
    for &rate in &options.slow_mb {
        let mut disk = SlowDisk::make(&options.dir)?;
        disk.limit(rate)?;
        let row = at_speed(options, &node, &disk, (rate, mb), ledger)?;
        disk.remove()?;
        writeln!(text, "{row}")?;
    }
    Ok(text)
}

fn at_speed(
    options: &super::Options,
    node: &Node,
    disk: &SlowDisk,
    (rate, mb): (u64, f64),
    ledger: &mut Ledger,
) -> Result<String> {
    let mut samples: [Vec<Sample>; TOOLS.len()] = Default::default();
    let (mut direct, mut stored) = (Vec::new(), 0.0);
    for round in 0..options.repeat {
        eprint_line(&format!("a disk of {rate} MB/s, round {}", round + 1))?;
        for (tool, samples) in TOOLS.into_iter().zip(&mut samples) {
            if !tool.is_there() {
                continue;
            }
            let place = Place::make(&disk.mount.join("place"), &options.program)?;
            let steps = tool.steps(node, &place)?;
            let full = steps.iter().find(|step| step.what == What::Full);
            node.warm()?;
            let command = &full.context("a tool without a full backup")?.command;
            samples.push(measure::run(command, &place)?);
            if tool == Tool::Highwater {
                stored = place.stored_mb()?;
            }
            place.remove()?;
        }
        let place = Place::make(&disk.mount.join("place"), &options.program)?;
        let out = quoted(&place.dir().join("zeros"));
        let blocks = mb.ceil();
        let dd = format!("dd if=/dev/zero of={out} bs=1000448 count={blocks} oflag=direct");
        direct.push(measure::run(&dd, &place)?.seconds);
        place.remove()?;
    }
    let middle = |of: &[Sample], figure: fn(&Sample) -> f64| {
        (!of.is_empty()).then(|| median(of.iter().map(figure).collect()))
    };
    let [own, copy, restic] = &samples;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let best = |sample: &Sample| (stored / rate as f64).max(sample.busy_seconds / cores);
    let to_best: Vec<f64> = own.iter().map(|sample| sample.seconds / best(sample)).collect();
    ledger.add(format!("a disk of {rate} MB/s: full backup to at best"), to_best.clone());
    let seconds = |of: &[Sample]| figure(middle(of, |sample| sample.seconds), 2);
    Ok(format!(
        "| {rate} | {} | {} | {} | {} | {} | {} | {stored:.0} | {} | {} |",
        figure(Some(median(direct)), 2),
        seconds(copy),
        seconds(restic),
        seconds(own),
        figure(middle(own, |sample| sample.busy_seconds), 2),
        figure(middle(own, |sample| sample.peak_mib), 0),
        figure(Some(median(own.iter().map(best).collect())), 2),
        figure(Some(median(to_best)), 2),
    ))
}

/// A file system on a loop device, taken down when this is dropped.
struct SlowDisk {
    image: PathBuf,
    mount: PathBuf,
    /// What is there by now.
    device: Option<String>,
    mounted: bool,
}

impl SlowDisk {
    fn make(dir: &Path) -> Result<SlowDisk> {
        let mut disk = SlowDisk {
            image: dir.join("slow.image"),
            mount: dir.join("slow"),
            device: None,
            mounted: false,
        };
        std::fs::create_dir_all(&disk.mount)?;
        std::fs::File::create(&disk.image)?.set_len(IMAGE_BYTES)?;
        run_silently(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?;
        let mut attach = Command::new("losetup");
        let attached = attach.args(["--find", "--show", "--direct-io=on"]).arg(&disk.image);
        let output = attached.output().context("losetup")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        disk.device = Some(device.clone());
        run_silently(Command::new("mount").arg(&device).arg(&disk.mount))?;
        disk.mounted = true;
        Ok(disk)
    }

    /// Holds writes back to so many MB a second; 0: as fast as they are.
    fn limit(&self, mb: u64) -> Result<()> {
        let device = self.device.as_deref().context("no loop device")?;
        let name = device.trim_start_matches("/dev/");
        let numbers = std::fs::read_to_string(format!("/sys/class/block/{name}/dev"))?;
        Ok(std::fs::write(LIMIT, format!("{} {}", numbers.trim(), mb * 1_000_000))?)
    }

    fn remove(&mut self) -> Result<()> {
        if self.mounted {
            self.limit(0)?;
            run_silently(Command::new("umount").arg(&self.mount))?;
            self.mounted = false;
        }
        if let Some(device) = self.device.take() {
            run_silently(Command::new("losetup").args(["--detach", &device]))?;
        }
        if self.image.exists() {
            std::fs::remove_file(&self.image)?;
        }
        Ok(())
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Where something failed already, that is told.
        let _ = self.remove();
    }
}
