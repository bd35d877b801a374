//! What agents cost that have nothing to do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use highwater::Env;
use highwater::agent::{Agent, Cadence, OperationState, Rules, VaultSource};
use highwater::vault::Actor;
use serde_json::Value;

use crate::{Outcome, new_vault};

/// Starts so many agents of small nodes, all with one vault, in a temporary directory; once their first backups are
/// done, measures for so long how much memory and processor time this process takes.
///
/// # Errors
/// An agent can't be started or its first backup fails, or the kernel does not tell.
pub fn measure(count: u64, seconds: u64) -> Outcome<Value> {
    let dir = tempfile::tempdir()?;
    let env = Env::system();
    let begun = env.monotonic();
    let vault = VaultSource::from(new_vault(dir.path())?);
    let before = resident_kib()?;
    let agents: Vec<Agent> =
        (0..count).map(|number| start(dir.path(), number, &vault)).collect::<Outcome<_>>()?;
    for agent in &agents {
        wait_for_first(agent, &env)?;
    }
    let first_backups = env.monotonic() - begun;
    let (cpu, begun) = (processor_time()?, env.monotonic());
    env.pause(Duration::from_secs(seconds));
    let (cpu, passed) = (processor_time()? - cpu, env.monotonic() - begun);
    let measured = serde_json::json!({
        "agents": count,
        "optimised": !cfg!(debug_assertions),
        "first_backups_seconds": first_backups.as_secs_f64(),
        "resident_before_kib": before,
        "resident_kib": resident_kib()?,
        "seconds": passed.as_secs_f64(),
        "processor_seconds": cpu.as_secs_f64(),
        "processor_percent_of_one_core": 100.0 * cpu.as_secs_f64() / passed.as_secs_f64(),
    });
    agents.iter().for_each(Agent::stop);
    Ok(measured)
}

fn start(dir: &Path, number: u64, vault: &VaultSource) -> Outcome<Agent> {
    let node = dir.join(format!("node-{number}"));
    fs::create_dir(&node)?;
    let rows = "CREATE TABLE t (n); INSERT INTO t VALUES (hex(randomblob(50000)));";
    rusqlite::Connection::open(node.join("state.sqlite"))?.execute_batch(rows)?;
    let actor = Actor { state_dir: dir.join("state"), name: "idle-agents".to_owned() };
    let rules = Rules::default()
        .backup(Some(Cadence::Every(Duration::from_secs(6 * 60 * 60))))
        .first_after(Some(Duration::ZERO));
    Ok(Agent::builder(node, vault.clone(), actor).rules(rules).start()?)
}

fn wait_for_first(agent: &Agent, env: &Env) -> Outcome<()> {
    loop {
        match agent.status().last_backup {
            Some(done) if done.state == OperationState::Completed => return Ok(()),
            Some(failed) => return Err(failed.reason.unwrap_or_default().into()),
            None => env.pause(Duration::from_millis(50)),
        }
    }
}

/// What of this process is in memory.
fn resident_kib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.ok_or("the kernel does not tell")?.trim().trim_end_matches(" kB");
    Ok(text.parse()?)
}

/// How long its threads have run, those that still do.
fn processor_time() -> Outcome<Duration> {
    let mut time = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = text.split_whitespace().next().ok_or("the kernel does not tell")?;
        time += Duration::from_nanos(nanos.parse()?);
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

    use super::measure;

    #[test]
    fn idle_agents_are_measured() {
        let measured = measure(3, 0).unwrap();
        assert_eq!(measured["agents"], 3);
        assert!(measured["resident_kib"].as_u64().unwrap() > 0);
    }
}
