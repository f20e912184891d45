"""Which process this is, by each launcher's variables, and where processes meet; without starting any."""

import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stay_diffusion.system import launchers, machine
from stay_diffusion.system.device import pick_device
from stay_diffusion.system.launchers import ALONE, World, find_world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "3", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "3"}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "5",
    "MV2_COMM_WORLD_SIZE": "6",
    "MV2_COMM_WORLD_LOCAL_RANK": "2",
    "MV2_COMM_WORLD_LOCAL_SIZE": "3",
}
SBATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}
SRUN = {
    **SBATCH,
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


@pytest.mark.parametrize(
    ("variables", "world"),
    [
        (TORCHRUN, World(3, 8, 1, 2, "torchrun")),
        (OPEN_MPI, World(2, 4, 0, 2, "Open MPI")),
        (MPICH, World(1, 3, 1, 3, "MPICH")),
        (MVAPICH, World(5, 6, 2, 3, "MVAPICH")),
        (SRUN, World(5, 8, 1, 4, "srun")),
    ],
    ids=lambda value: value.launcher if isinstance(value, World) else "",
)
def test_each_launcher_s_variables_tell_the_rank(variables, world):
    assert find_world({"HOME": "/", **variables}) == world


@pytest.mark.parametrize(
    "variables", [{}, SBATCH, {"RANK": "0"}, {"WORLD_SIZE": "4"}, {"SLURM_STEP_ID": "0", **SBATCH}]
)
def test_without_a_launcher_of_processes_a_run_is_alone(variables):
    assert find_world(variables) == ALONE


def test_one_process_of_any_launcher_is_alone():
    one = {"PMI_RANK": "0", "PMI_SIZE": "1", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
    assert find_world(one) == ALONE
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}
    assert find_world({**SBATCH, **step}) == ALONE


def test_the_launcher_started_within_another_counts():
    assert find_world({**SRUN, **TORCHRUN}).launcher == "torchrun"  # srun torchrun, one a node
    assert find_world({**MPICH, **TORCHRUN}).launcher == "torchrun"
    assert find_world({**SRUN, **OPEN_MPI}).launcher == "Open MPI"  # mpiexec starts its daemons by srun
    assert find_world({**SRUN, "SLURM_STEP_NUM_TASKS": "2", **MPICH}).launcher == "MPICH"
    assert find_world({**SBATCH, **MPICH}) == World(1, 3, 1, 3, "MPICH")


def test_an_srun_that_speaks_pmi2_is_srun_with_its_nodes():
    assert find_world({**SRUN, "PMI_RANK": "5", "PMI_SIZE": "8"}) == World(5, 8, 1, 4, "srun")


def test_a_launcher_that_does_not_tell_of_nodes_has_one():
    assert find_world({"RANK": "1", "WORLD_SIZE": "2"}) == World(1, 2, 1, 2, "torchrun")


@pytest.mark.parametrize(
    ("per_node", "nodes", "size"),
    [("4(x2)", "2", 4), ("4,3", "2", 4), ("2,3(x2)", "3", 3), ("2(x12)", "12", 2), ("8", "1", 8)],
)
def test_slurm_s_tasks_of_a_node_are_those_of_the_fullest(per_node, nodes, size):
    step = {**SRUN, "SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_STEP_NUM_NODES": nodes}
    assert find_world(step).local_size == size


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"RANK": "three"}, "RANK=three: not a number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: not a number"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x: not a number"),
        ({"RANK": "8"}, "torchrun: RANK=8 with WORLD_SIZE=8 cannot be"),
        ({"RANK": "-1"}, "torchrun: RANK=-1 with WORLD_SIZE=8 cannot be"),
        ({"LOCAL_RANK": "2"}, "torchrun: RANK=3 with WORLD_SIZE=8 cannot be"),
        ({"LOCAL_WORLD_SIZE": "9"}, "torchrun: RANK=3 with WORLD_SIZE=8 cannot be"),
    ],
)
def test_numbers_that_cannot_be_are_told_in_one_line(changed, told):
    with pytest.raises(ValueError) as error:
        find_world({**TORCHRUN, **changed})
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def test_several_nodes_are_told_from_one():
    assert find_world(SRUN).several_nodes and find_world(OPEN_MPI).several_nodes
    assert not find_world(MPICH).several_nodes and not ALONE.several_nodes
    assert ALONE.is_main and not find_world(MPICH).is_main


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-08]", "gpu07"),
        ("gpu[3,5-7],cpu1", "gpu3"),
        ("node1,node[2-3]", "node1"),
        ("host.example.org", "host.example.org"),
        ("rack[1-2]n[10-12]", "rack1n10"),
    ],
)
def test_the_first_node_of_a_slurm_list_is_where_rank_0_is(monkeypatch, nodes, first):
    for name, value in {**SRUN, "SLURM_STEP_NODELIST": nodes}.items():
        monkeypatch.setenv(name, value)
    assert launchers._address_by_slurm()[0] == first


def test_steps_at_the_same_time_get_ports_of_their_own(monkeypatch):
    ports = set()
    for job, step in ((77, 0), (77, 1), (78, 0), (4294967295, 3)):
        monkeypatch.setenv("SLURM_STEP_NODELIST", "a")
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        monkeypatch.setenv("SLURM_STEP_ID", str(step))
        ports.add(launchers._address_by_slurm()[1])
    assert len(ports) == 4 and all(1024 < port < 65536 for port in ports)


def test_a_step_without_nodes_says_what_to_set(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    with pytest.raises(ValueError, match="SLURM_STEP_NODELIST: empty; set MASTER_ADDR and MASTER_PORT"):
        launchers._address_by_slurm()


@pytest.mark.parametrize(("found", "told"), [("10.1.2.3", "10.1.2.3"), ("127.0.1.1", "node7"), (None, "node7")])
def test_other_nodes_are_never_told_an_address_that_means_themselves(monkeypatch, found, told):
    def look_up(name):
        if found is None:
            raise socket.gaierror(-2, "Name or service not known")
        return found

    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "gethostbyname", look_up)
    assert launchers._own_address() == told


@pytest.fixture
def mpi(monkeypatch):
    """mpi(size) -> what its processes were told: an mpi4py whose library sees so many."""

    def build(size):
        told = []
        world = SimpleNamespace(Get_size=lambda: size, bcast=lambda value, root: told.append((value, root)) or value)
        library = SimpleNamespace(
            COMM_WORLD=world, Get_library_version=lambda: "Open MPI v5.0.3, package: Debian\nmore"
        )
        monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=library))
        return told

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    return build


def test_where_rank_0_is_goes_to_other_nodes_by_mpi(mpi):
    told = mpi(4)
    address, port = launchers._address_by_mpi(World(0, 4, 0, 2, "MPICH"))
    assert told == [((address, port), 0)] and address == launchers._own_address() and 0 < port < 65536
    launchers._address_by_mpi(World(3, 4, 1, 2, "MPICH"))
    assert told[1] == (None, 0)


def test_a_launcher_of_another_mpi_than_mpi4py_s_is_one_line(mpi):
    mpi(1)
    with pytest.raises(ValueError) as error:
        launchers.meet(World(0, 4, 0, 2, "MPICH"), timeout=1)
    told = (
        "MPICH started 4 processes, but mpi4py's library (Open MPI v5.0.3) sees 1: use the mpiexec that belongs to it"
    )
    assert str(error.value) == told + ", or set MASTER_ADDR and MASTER_PORT"


def test_several_nodes_without_mpi4py_say_what_to_do(mpi, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(
        ValueError, match=r"several nodes meet through mpi4py \(.*\), or at MASTER_ADDR and MASTER_PORT"
    ):
        launchers.meet(World(0, 4, 0, 2, "MPICH"), timeout=1)


def test_siblings_meet_by_one_file_and_others_by_another(monkeypatch, tmp_path):
    monkeypatch.setattr(launchers.tempfile, "gettempdir", lambda: str(tmp_path))
    mine = launchers._meeting_file()
    assert mine == launchers._meeting_file() and mine.parent == tmp_path
    assert str(os.getuid()) in mine.name
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launchers._meeting_file() != mine


def test_processes_started_through_scripts_meet_by_their_launcher(monkeypatch, tmp_path):
    line = [(50, "python"), (40, "sh"), (30, "hydra_pmi_proxy"), (20, "mpiexec.hydra"), (10, "bash")]
    monkeypatch.setattr(machine, "ancestors", lambda pid: iter(line))
    monkeypatch.setattr(Path, "read_text", lambda path: f"1 (x) {' '.join(map(str, range(3, 40)))}")
    assert "-30-" in launchers._meeting_file().name


def test_ancestors_go_up_to_the_first_process():
    line = list(machine.ancestors(os.getpid()))
    assert line[0][0] == os.getpid() and line[1][0] == os.getppid() and line[-1][0] > 1


def test_only_a_port_that_someone_listens_on_answers():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        assert launchers._answers("127.0.0.1", port)
    assert not launchers._answers("127.0.0.1", port)
    assert not launchers._answers("127.0.0.1", "") and not launchers._answers("127.0.0.1", "70000")


class TestGpus:
    """Processes that tell one another which GPUs they see: (local rank, their names) of each rank."""

    @pytest.fixture(autouse=True)
    def pretended(self, monkeypatch):
        self.seen, self.chosen = ["a", "b"], []
        monkeypatch.setattr("torch.cuda.is_available", lambda: bool(self.seen))
        monkeypatch.setattr("torch.cuda.device_count", lambda: len(self.seen))
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: SimpleNamespace(uuid=self.seen[i]))
        monkeypatch.setattr("torch.cuda.set_device", lambda device: self.chosen.append(device.index))
        monkeypatch.setattr("stay_diffusion.system.device.wait_for_all", self.tell)

    def tell(self, name, value):
        assert json.loads(value) in [list(each) for each in self.of_all]
        return [json.dumps(each) for each in self.of_all]

    def pick(self, of_all):
        """What each process takes, by rank."""
        self.of_all, self.chosen[:], taken = of_all, [], []
        for rank, (local_rank, self.seen) in enumerate(of_all):
            taken.append(pick_device(world=World(rank, len(of_all), local_rank, len(of_all))))
        assert self.chosen == [device.index for device in taken if device.type == "cuda"]
        return [str(device) for device in taken]

    def test_of_those_that_all_see_each_process_of_a_node_takes_its_own(self):
        nodes = [(0, ["a", "b"]), (1, ["a", "b"]), (0, ["c", "d"]), (1, ["c", "d"])]
        assert self.pick(nodes) == ["cuda:0", "cuda:1"] * 2

    def test_they_go_by_the_rank_on_their_node(self):
        in_turn = [(0, ["a", "b"]), (0, ["c", "d"]), (1, ["a", "b"]), (1, ["c", "d"])]
        assert self.pick(in_turn) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
        assert self.pick([(1, ["a", "b"]), (0, ["a", "b"])]) == ["cuda:1", "cuda:0"]

    def test_a_process_that_sees_one_of_its_own_takes_that(self):
        assert self.pick([(0, ["a"]), (1, ["b"]), (2, ["c"])]) == ["cuda:0"] * 3

    def test_those_that_see_two_each_of_four_share_them_so(self):
        assert (
            self.pick([(0, ["a", "b"]), (1, ["a", "b"]), (2, ["c", "d"]), (3, ["c", "d"])]) == ["cuda:0", "cuda:1"] * 2
        )

    @pytest.mark.parametrize(
        ("of_all", "told"),
        [
            ([(0, ["a", "b"]), (1, ["a", "b"]), (2, ["a", "b"])], "3 processes on this node but 2 GPUs: start fewer"),
            ([(0, ["a"]), (1, ["a"]), (2, ["b"])], "2 processes on this node but 1 GPUs: start fewer, let each see"),
            ([(0, ["a"]), (1, []), (2, [])], "rank 1, 2 of 3 sees no GPU, but others do"),
        ],
    )
    def test_too_few_are_one_line_and_the_same_for_all(self, of_all, told):
        for rank in range(len(of_all)):
            self.of_all, self.seen = of_all, of_all[rank][1]
            with pytest.raises(ValueError) as error:
                pick_device(world=World(rank, 3, rank, 3))
            assert str(error.value).startswith(told) and "\n" not in str(error.value)
        assert not self.chosen

    def test_without_any_all_take_the_processor(self):
        assert self.pick([(0, []), (1, [])]) == ["cpu", "cpu"]

    def test_a_process_alone_takes_the_current_one_and_asks_nobody(self):
        assert pick_device().index is None and not self.chosen
