"""Whether only this user (and the system's administrator) can decide what stands in a folder.

Libraries of the compile cache are executed, so nobody else may own it, write to it, or exchange a folder or a symbolic
link on the way to it. In a folder that all may write to but that is sticky, as /tmp, what we own stays ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from effcc.errors import CacheError

_MOST_LINKS = 40
_UNMAPPED = 65534
"""The owner that files have whose real owner is outside this container: its host's administrator, above all."""


def trusted_owners() -> set[int]:
    """The users whose files we run: ourselves, and the administrator, who may do anything."""
    return {0, os.getuid()}


def require_private(folder: Path, advice: str) -> None:
    """Raise CacheError unless `folder`, which exists, is a folder that nobody else can write to or exchange."""
    _require_private_way(folder, advice)
    _require_private_folder(folder, os.stat(folder), advice)


def require_private_part(folder: Path, advice: str) -> None:
    """As `require_private`, for a folder within a private one: not a symbolic link to somewhere else."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise CacheError(f"{folder} in the cache is no folder; remove it, or {advice}")
    _require_private_folder(folder, found, advice)


def is_private_file(found: os.stat_result) -> bool:
    """Whether an open file is a regular one that nobody else owns or can write to."""
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(found.st_mode) and found.st_uid in trusted_owners() and not writable


def make_private(folder: Path) -> None:
    """Make a folder, and those on the way to it that are missing, for this user only, whatever the umask is."""
    missing = [folder, *folder.parents]
    missing = missing[: next((n for n, f in enumerate(missing) if f.exists()), len(missing))]
    for one in reversed(missing):
        try:
            one.mkdir(mode=0o700)
        except FileExistsError:  # by another process, just now
            if not one.is_dir():
                raise
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")


def _require_private_folder(folder: Path, found: os.stat_result, advice: str) -> None:
    if found.st_uid not in trusted_owners():
        raise CacheError(f"the cache folder {folder} belongs to another user (uid {found.st_uid}); {advice}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(f"other users can write to the cache folder {folder}: run `chmod go-w {folder}`, or {advice}")


def _require_private_way(folder: Path, advice: str) -> None:
    """Every folder and symbolic link on the way, the links' own ways included."""
    pending = list(reversed(folder.absolute().parts[1:]))
    at, links, sticky = Path(folder.absolute().anchor), 0, False
    while pending:
        sticky = _check_step(folder, at, os.lstat(at), advice)
        part = pending.pop()
        if part in (".", ""):
            continue
        if part == "..":
            at = at.parent
            continue
        step = at / part
        found = os.lstat(step)
        if found.st_uid not in trusted_owners() and (sticky or found.st_uid != _UNMAPPED):
            is_link = stat.S_ISLNK(found.st_mode)
            if is_link or step != folder.absolute():  # of the folder itself more is said below
                raise CacheError(
                    f"another user (uid {found.st_uid}) can replace the cache folder {folder}: the "
                    f"{'symbolic link' if is_link else 'folder'} {step} on the way is theirs; {advice}"
                )
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise CacheError(f"the way to the cache folder {folder} goes round in symbolic links; {advice}")
        target = Path(os.readlink(step))
        at = Path(target.anchor) if target.is_absolute() else at
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _check_step(folder: Path, at: Path, found: os.stat_result, advice: str) -> bool:
    """Whether a folder on the way is sticky; raises CacheError where others may rename what is in it."""
    mode = found.st_mode
    shared = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_own_group(found.st_gid))
    if shared and not mode & stat.S_ISVTX:
        who, whose = ("any user", "all") if mode & stat.S_IWOTH else ("other users", "a group")
        raise CacheError(f"{who} can replace the cache folder {folder}: {at} is writable by {whose}; {advice}")
    return bool(shared)


def _is_own_group(group: int) -> bool:
    """Whether a group is this user's private one, as some systems make for every user."""
    import grp
    import pwd

    if group == 0 and os.getuid() == 0:
        return True
    try:
        user, entry = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}
