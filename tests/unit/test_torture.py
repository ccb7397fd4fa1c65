from shop.torture import plan

VICTIMS = ["api", "listeners-1", "kafka"]


def test_a_seed_draws_the_same_faults_again_and_another_one_others() -> None:
    assert plan(1, 60, VICTIMS) == plan(1, 60, VICTIMS)
    assert plan(1, 60, VICTIMS) != plan(2, 60, VICTIMS)


def test_as_many_faults_as_fit_hit_every_victim_killed_and_frozen() -> None:
    faults = plan(1, 600, VICTIMS)
    assert {(fault.victim, fault.frozen is None) for fault in faults} == {
        (victim, killed) for victim in VICTIMS for killed in (True, False)
    }
    moments = [fault.at for fault in faults]
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 600


def test_no_more_faults_than_asked_for() -> None:
    faults = plan(7, 60, VICTIMS, 3)
    assert len(faults) == 3
    assert all(0 <= fault.at < 60 for fault in faults)
