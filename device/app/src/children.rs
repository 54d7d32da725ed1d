//! Commands that the user wrote for a shell, run as children that know nothing of systemd.

use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process_group};

/// What systemd tells a service alone; a child that has it could speak in the service's name.
const OF_THE_SERVICE: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// `line`, to be run by the shell, in a process group of its own.
pub(crate) fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).process_group(0);
    for name in OF_THE_SERVICE {
        command.env_remove(name);
    }
    command
}

/// Ends a child and what it has started, and waits until it is gone.
pub(crate) fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}
