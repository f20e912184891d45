import torch
from counting import operations, peak_bytes
from floors import Work, sampling_work, training_work
from subjects import NETWORKS, Sampling, Training
from torch.nn.functional import conv2d, scaled_dot_product_attention

CPU = torch.device("cpu")


def test_a_matrix_product_has_two_operations_for_each_product_of_numbers():
    a, b = torch.ones(5, 7), torch.ones(7, 11)
    assert operations(lambda: a @ b) == 2 * 5 * 7 * 11


def test_a_backward_pass_of_a_convolution_takes_twice_its_forward_pass():
    x, w = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 8, 8), (4, 3, 3, 3)))
    forward = 2 * 2 * 4 * 3 * 9 * 64
    assert operations(lambda: conv2d(x, w, padding=1)) == forward
    assert operations(lambda: conv2d(x, w, padding=1).sum().backward()) == 3 * forward


def test_attention_counts_on_a_cpu_too():
    q = torch.randn(2, 4, 64, 32, requires_grad=True)
    assert operations(lambda: scaled_dot_product_attention(q, q, q)) == 2 * (2 * 2 * 4 * 64 * 64 * 32)
    assert operations(lambda: scaled_dot_product_attention(q, q, q).sum().backward()) > 3 * 2 * (
        2 * 2 * 4 * 64 * 64 * 32
    )


def test_the_most_bytes_are_those_that_exist_at_once():
    def action():
        first = torch.zeros(1_000_000)
        second = first + 1
        del first
        return second * 2

    assert 8_000_000 <= peak_bytes(action, CPU) < 8_100_000


def test_what_existed_before_is_not_counted():
    before = torch.zeros(1_000_000)
    assert 0 < peak_bytes(lambda: before[:1000] + 1, CPU) < 10_000


def test_work_counted_without_storage_is_that_of_the_real_steps():
    config = NETWORKS["tiny"].config(2)
    training, sampling = Training(config, CPU, 3), Sampling(config, CPU, 3)
    # But for one product of attention that its backward pass makes again on a real device.
    again = 2 * 2 * (8 * 8) ** 2 * 32
    assert operations(training.step) - training_work(config, 3, 4).operations in (0, again)
    assert sampling_work(config, 3, 4).operations == operations(sampling.step) > 1e8


def test_a_guided_call_takes_more_than_a_plain_one_and_at_most_two_of_them():
    plain, guided = (operations(Sampling(NETWORKS["tiny"].config(2), CPU, 3, scale=s).step) for s in (1.0, 1.5))
    assert plain < guided <= 2 * plain


def test_pieces_change_neither_the_operations_nor_the_bytes_of_a_step():
    config = NETWORKS["tiny"].config(4)
    assert training_work(config, 3, 2) == training_work(NETWORKS["tiny"].config(4, microbatch=1), 3, 2)


def test_the_floor_is_what_takes_longer():
    work = Work(operations=1000, bytes=10)
    assert work.floor(rate=100, bandwidth=10) == 10
    assert work.floor(rate=1000, bandwidth=2) == 5


def test_what_an_earlier_count_left_behind_does_not_lower_the_next():
    left = []
    peak_bytes(lambda: left.append(torch.zeros(500_000)), CPU)

    def action():
        left.clear()
        return torch.zeros(1_000_000)

    assert peak_bytes(action, CPU) >= 4_000_000
