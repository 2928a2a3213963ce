import torch

from promptlesion.prompt.attributes import AttributePrompt

NAN = float("nan")


def built() -> AttributePrompt:
    torch.manual_seed(0)
    prompt = AttributePrompt(num_types=2, num_attributes=3, embedding_dimension=8)
    prompt.set_scale(
        torch.tensor([[60.0, 5.0, 1.0], [600.0, 100.0, 2.0]]), torch.tensor([[12.0, 1.0, 1.0], [110.0, 20.0, 1.0]])
    )
    return prompt


def test_attributes_are_told_in_deviations_of_their_own_type() -> None:
    prompt = built()
    told = prompt.standardised(torch.tensor([0, 1]), torch.tensor([[72.0, 5.0, NAN], [710.0, 0.0, 2000.0]]))
    torch.testing.assert_close(told, torch.tensor([[1.0, 0.0, NAN], [1.0, -4.0, 4.0]]), equal_nan=True)


def test_what_is_left_open_is_not_the_mean() -> None:
    prompt, kind = built(), torch.tensor([0])
    mean, open_one = (prompt(kind, torch.tensor([[value, 5.0, 1.0]])) for value in (60.0, NAN))
    assert mean.shape == (1, 8, 1, 1, 1)
    assert bool(torch.isfinite(open_one).all())
    assert not torch.equal(mean, open_one)


def test_like_attributes_of_different_types_give_like_prompts() -> None:
    prompt = built()
    first, second = prompt(torch.tensor([0, 1]), torch.tensor([[84.0, 6.0, 1.0], [820.0, 120.0, 2.0]]))
    torch.testing.assert_close(first, second)
