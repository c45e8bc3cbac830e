"""Producer and sidecar in different PID namespaces, under different users, in directories that are hostile or too small."""

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import wait_until
from ring_reader import Ring
from service import Service

LONG = ("--period", "24h")


@pytest.fixture(scope="module", autouse=True)
def root():
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    if os.geteuid() != 0 or subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("other users and namespaces need root, with CAP_SYS_ADMIN")


def reported(sidecar):
    return sum(report["rows"] for report in sidecar.reports())


def wait_scanned(sidecar):
    """Until it has looked at every ring at least once more: what is no ring is named in the scan that finds it."""
    for name in ("first", "second"):
        noise = sidecar.ring_dir / f"{name}.0.ring"
        said = sidecar.log.read_text().count(noise.name)
        noise.write_bytes(b"noise")
        sidecar.wait_until(lambda: sidecar.log.read_text().count(noise.name) > said, "it has scanned")
        noise.unlink()


# ---- PID namespaces ----

OTHER_PIDS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def test_a_producer_in_another_pid_namespace_is_seen_to_come_go_and_come_again(run_sidecar, ring_dir):
    with run_sidecar(*LONG, ring_dir=ring_dir) as sidecar:
        for epoch in (1, 2):
            with Service(ring_dir, prefix=OTHER_PIDS) as service:
                assert service.opened["pid"] == 1 and service.write(3)
                ring = Path(service.path)
                sidecar.wait_drained(ring)
                seen = sidecar.inspect(ring)
                assert (seen["producer_attached"], seen["producer_epoch"], seen["consumer_attached"]) == (True, epoch, True)
            sidecar.wait_until(lambda: not sidecar.inspect(ring)["producer_attached"], "the producer is gone")
        sidecar.stop()
        assert reported(sidecar) == 6 and os.listdir(ring_dir) == ["m.0.ring"]


def test_a_sidecar_in_another_pid_namespace_sees_who_is_there_and_is_seen(run_sidecar, ring_dir, tmp_path):
    config = tmp_path / "mlwatch.toml"
    config.write_text("[limits]\nkeep_abandoned = '1ms'\n")
    options = ("--period", "100ms", "--config", config)
    with Service(ring_dir) as service:
        ring, rows = Path(service.path), 0
        for epoch in (1, 2):
            with run_sidecar(*options, ring_dir=ring_dir, output=tmp_path, prefix=OTHER_PIDS) as sidecar:
                assert service.write(3)
                rows += 3
                sidecar.wait_drained(ring)
                wait_scanned(sidecar)
                seen = sidecar.inspect(ring)
                assert (seen["producer_attached"], seen["consumer_attached"], seen["consumer_epoch"]) == (True, True, epoch)
                sidecar.wait_until(lambda: reported(sidecar) == rows, "the rows are reported")
                if epoch == 2:
                    service.kill()
                    sidecar.wait_until(lambda: not ring.exists(), "the abandoned ring is removed")
            wait_until(lambda: epoch == 2 or not sidecar.inspect(ring)["consumer_attached"], "the sidecar is gone")


def test_two_producers_of_one_pid_in_two_namespaces_take_two_slots(ring_dir):
    with Service(ring_dir, prefix=OTHER_PIDS) as one, Service(ring_dir, prefix=OTHER_PIDS) as two:
        assert one.opened["pid"] == two.opened["pid"] == 1
        assert one.write(3) and two.write(5)
        assert [Path(s.path).name for s in (one, two)] == ["m.0.ring", "m.1.ring"]
        assert [Ring(s.path).rows for s in (one, two)] == [3, 5]


# ---- users and groups ----

PRODUCER, SIDECAR, COMMON = 12345, 12346, 23456


@pytest.fixture
def run_as(run_sidecar, mlwatch_bin):
    """A sidecar that runs as SIDECAR, its own group and `groups`; its program and its output are where it can reach them."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        binary, output = Path(shutil.copy(mlwatch_bin, place)), Path(place, "output")
        output.mkdir()
        os.chown(output, SIDECAR, SIDECAR)

        def run(ring_dir, *options, groups=()):
            others = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
            prefix = ("setpriv", f"--reuid={SIDECAR}", f"--regid={SIDECAR}", *others)
            return run_sidecar(*LONG, *options, ring_dir=ring_dir, output=output, prefix=prefix, binary=binary)

        yield run


@pytest.fixture
def sticky(ring_dir):
    """As /dev/shm is: everybody may make files there, and remove only their own."""
    ring_dir.chmod(0o1777)
    return ring_dir


def test_a_common_group_is_enough_whatever_the_umask(run_as, sticky):
    rings = sticky / "rings"
    for slot, umask in enumerate((0o022, 0o077)):
        with contextlib.ExitStack() as both:
            service = both.enter_context(Service(rings, user=(PRODUCER, COMMON, []), umask=umask, model=f"umask_{umask}"))
            sidecar = both.enter_context(run_as(rings, groups=[COMMON]))
            assert service.write(3)
            sidecar.wait_drained(service.path)
            file, folder = os.stat(service.path), os.stat(rings)
            assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (0o660, PRODUCER, COMMON)
            assert (stat.S_IMODE(folder.st_mode), folder.st_gid) == (0o2770, COMMON)
            assert sidecar.inspect(service.path)["consumer_epoch"] == 1, "it has written its page"
            sidecar.stop()
            assert reported(sidecar) == 3 * (slot + 1)


@pytest.mark.parametrize("folder, text", [("rings", "cannot read the ring directory"), (".", "not read.*cannot open it")])
def test_without_a_common_group_the_sidecar_says_who_it_is_and_what_helps(run_as, sticky, folder, text):
    rings = sticky / folder
    with Service(rings, user=(PRODUCER, PRODUCER, [])) as service, run_as(rings) as sidecar:
        line = sidecar.wait_until(lambda: re.search(f".*{text}.*", sidecar.log.read_text()), "it says why")[0]
        assert re.search(rf"uid.?{SIDECAR} gid.?{SIDECAR}", line) and "Permission denied" in line
        assert "common user or group" in line
        assert service.write(3)
    assert Ring(service.path).rows == 3


# ---- a sticky directory that everybody may write to ----

OTHER = 12347


def dead_ring(sticky, user, **options):
    with Service(sticky, user=user, **options) as service:
        return Path(service.path)


def test_a_dead_ring_that_may_not_be_opened_or_replaced_costs_a_slot_and_nothing_else(sticky):
    closed_to_us = dead_ring(sticky, (OTHER, OTHER, []))
    of_our_group = dead_ring(sticky, (PRODUCER, COMMON, []), n_features=1)
    before = [os.stat(path).st_ino for path in (closed_to_us, of_our_group)]
    with Service(sticky, user=(SIDECAR, COMMON, []), n_features=2) as service:
        assert service.path == f"{sticky}/m.2.ring" and service.write(3)
    assert [os.stat(path).st_ino for path in (closed_to_us, of_our_group)] == before
    assert sorted(os.listdir(sticky)) == ["m.0.ring", "m.1.ring", "m.2.ring"]


def test_a_dead_ring_of_another_user_and_our_group_is_continued(sticky):
    ring = dead_ring(sticky, (PRODUCER, COMMON, []))
    with Service(sticky, user=(OTHER, COMMON, [])) as service:
        assert service.path == str(ring) and service.write(3)
    assert Ring(ring).attach_epoch == 2


@pytest.mark.parametrize("user, mode", [((OTHER, OTHER, []), 0o666), ((OTHER, COMMON, []), 0o662)])
def test_a_dead_ring_that_strangers_may_write_to_is_not_continued(sticky, user, mode):
    """They could cut it short under the producer's stores."""
    ring = dead_ring(sticky, user)
    ring.chmod(mode)
    with Service(sticky, user=(SIDECAR, COMMON, [])) as service:
        assert service.path == f"{sticky}/m.1.ring" and service.write(3)


def test_a_ring_that_the_sidecar_may_not_remove_is_named_once_and_its_producer_comes_back(run_as, sticky):
    config = sticky / "mlwatch.toml"
    config.write_text("[limits]\nkeep_abandoned = '1ms'\n")
    ring = dead_ring(sticky, (PRODUCER, COMMON, []))
    with run_as(sticky, "--config", config, groups=[COMMON]) as sidecar:
        sidecar.wait_until(lambda: "cannot remove" in sidecar.log.read_text(), "it says so")
        wait_scanned(sidecar)
        with Service(sticky, user=(PRODUCER, COMMON, [])) as service:
            assert service.path == str(ring) and service.write(3)
            sidecar.wait_drained(ring)
        sidecar.stop()
    assert reported(sidecar) == 3
    assert sidecar.log.read_text().count("cannot remove an abandoned ring") == 1


# ---- a tmpfs that is too small ----


def in_tmpfs(place, size):
    """What starts a process that sees a tmpfs of that size at `place`."""
    return ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs {place} && exec "$@"', "sh")


def seen_by(service):
    """The ring's path as others see it."""
    return Path(f"/proc/{service.opened['pid']}/root{service.path}")


def fill(folder):
    with open(folder / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    assert os.statvfs(folder).f_bavail == 0


@pytest.mark.parametrize("size, ring_bytes, remedy", [
    ("1m", 1 << 20, "raise its size, or lower ring_bytes from 1048576 to 524288"),
    ("64k", 8 << 20, "raise its size, or lower ring_bytes from 8388608 to 32768"),
    ("16k", 1 << 14, "raise its size: no ring fits into that"),
])  # fmt: skip
def test_a_file_system_that_is_too_small_is_told_with_the_sizes(tmp_path, size, ring_bytes, remedy):
    with Service(tmp_path, prefix=in_tmpfs(tmp_path, size), ring_bytes=ring_bytes) as service:
        assert service.opened["errno"] == errno.ENOSPC and service.opened["files"] == []
        free = int(size[:-1]) << (20 if size.endswith("m") else 10)
        needs = ring_bytes + 3 * os.sysconf("SC_PAGESIZE")
        assert f"{needs} bytes in {tmp_path}, where {free} are free: {remedy}" in service.opened["error"]


def test_the_size_that_is_told_to_fit_does(tmp_path):
    with Service(tmp_path, prefix=in_tmpfs(tmp_path, "1m"), ring_bytes=524288) as service:
        assert service.write(3)


def test_a_ring_goes_on_for_laps_in_a_file_system_filled_to_the_brim(run_sidecar, tmp_path):
    with Service(tmp_path, prefix=in_tmpfs(tmp_path, "1m"), ring_bytes=1 << 18) as service:
        ring = seen_by(service)
        fill(ring.parent)
        with run_sidecar(*LONG, ring_dir=ring.parent) as sidecar:
            rows, laps = 1000, 5
            for _ in range(laps * (1 << 18) // (rows * 8)):
                sidecar.wait_until(lambda: service.write(rows), "there is room in the ring")
            sidecar.wait_drained(ring)
            assert Ring(ring).tail > laps << 18
            sidecar.stop()
            assert reported(sidecar) == laps * (1 << 18) // (rows * 8) * rows


def test_where_there_is_no_room_for_another_a_dead_ring_is_continued(tmp_path):
    with Service(tmp_path, prefix=in_tmpfs(tmp_path, "1m"), ring_bytes=1 << 18) as first:
        beside = ("nsenter", f"--mount=/proc/{first.opened['pid']}/ns/mnt")
        with Service(tmp_path, prefix=beside, ring_bytes=1 << 18) as second:
            assert second.path == f"{tmp_path}/m.1.ring"
        seen_by(first).unlink()
        fill(seen_by(first).parent)
        with Service(tmp_path, prefix=beside, ring_bytes=1 << 18) as again:
            assert again.path == second.path and again.write(3)
