"""A folder that shows what Linux says of the control groups of a process."""

from pathlib import Path

V2 = "30 23 0:26 {root} {folder} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {root} {folder} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


class Tree:
    """What /proc and the mounted control groups say, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        self.write("proc/self/cgroup", "")
        self.write("proc/self/mountinfo", "22 27 0:21 / /proc rw,relatime - proc proc rw\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "\n".join(["9:name=systemd:/init", "4:memory:/elsewhere", *lines, ""]))

    def mount(self, form: str, root: str = "/", folder: str = "/sys/fs/cgroup") -> None:
        with (self.root / "proc/self/mountinfo").open("a") as file:
            file.write(form.format(root=root, folder=folder) + "\n")

    def v2(self, group: str, text: str) -> None:
        self.write(f"sys/fs/cgroup{group}/cpu.max", text)

    def v1(self, group: str, quota: int, period: int = 100_000) -> None:
        self.write(f"sys/fs/cgroup/cpu,cpuacct{group}/cpu.cfs_quota_us", f"{quota}\n")
        self.write(f"sys/fs/cgroup/cpu,cpuacct{group}/cpu.cfs_period_us", f"{period}\n")
