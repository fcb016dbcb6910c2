"""Who gets a place, and who gives one up."""

from dataclasses import dataclass, field

from ocean_core.ingress.admission import Admission


@dataclass(eq=False)
class Guest:
    address: str = "192.0.2.1"
    is_trusted: bool = False
    is_idle: bool = False
    heard_at: float = 0.0
    gone: list["Guest"] = field(default_factory=list)

    def give_way(self) -> None:
        self.gone.append(self)


def local(*, is_idle: bool = False) -> Guest:
    return Guest("127.0.0.1", is_trusted=True, is_idle=is_idle)


def test_the_network_leaves_places_for_this_machine() -> None:
    admission = Admission(8, 100, has_local_listener=True)
    admitted = [admission.admit(Guest(f"192.0.2.{i}")) for i in range(8)]
    assert admitted == [True] * 6 + [False] * 2
    assert [admission.admit(local()) for _ in range(3)] == [True, True, False]


def test_without_a_local_listener_the_network_has_all_places() -> None:
    admission = Admission(8, 100, has_local_listener=False)
    assert all(admission.admit(Guest()) for _ in range(8))
    assert not admission.admit(Guest())


def test_the_network_never_pushes_out_this_machine() -> None:
    admission = Admission(4, 100, has_local_listener=True)
    idle = [local(is_idle=True) for _ in range(4)]
    assert all(admission.admit(guest) for guest in idle)
    assert not admission.admit(Guest())
    assert not any(guest.gone for guest in idle)


def test_this_machine_pushes_out_the_network_before_its_own() -> None:
    admission = Admission(2, 100, has_local_listener=True)
    old = local(is_idle=True)
    remote = Guest(is_idle=True, heard_at=9.0)
    assert admission.admit(old)
    assert admission.admit(remote)
    assert admission.admit(local())
    assert (remote.gone, old.gone) == ([remote], [])
    assert admission.admit(local())
    assert old.gone == [old]
    assert not admission.admit(local())


def test_an_address_has_its_limit_and_gives_way_to_itself() -> None:
    admission = Admission(100, 2, has_local_listener=True)
    busy, idle, other = Guest(), Guest(is_idle=True), Guest("192.0.2.2", is_idle=True)
    assert all(admission.admit(guest) for guest in (busy, idle, other))
    assert admission.admit(Guest())
    assert idle.gone
    assert not other.gone
    assert not admission.admit(Guest())


def test_who_leaves_is_forgotten_once_and_for_all() -> None:
    admission = Admission(100, 1, has_local_listener=True)
    guest = Guest()
    for _ in range(3):
        assert admission.admit(guest)
        admission.forget(guest)
        admission.forget(guest)
