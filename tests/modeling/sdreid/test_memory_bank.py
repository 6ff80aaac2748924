import torch

from fastreid.modeling.meta_arch.sdreid import MemoryBank


def test_the_first_batch_with_a_view_initialises_its_prototype():
    bank = MemoryBank(num_views=3, dim=4, momentum=0.8)
    tokens = torch.randn(5, 4)
    bank.update(tokens, torch.tensor([0, 0, 2, 2, 2]))
    torch.testing.assert_close(bank.prototypes[0], tokens[:2].mean(0))
    torch.testing.assert_close(bank.prototypes[2], tokens[2:].mean(0))
    assert bank.seen.tolist() == [True, False, True]
    assert bank.prototypes[1].abs().sum() == 0


def test_later_batches_follow_the_recursion():
    bank = MemoryBank(num_views=2, dim=3, momentum=0.8)
    expected = {}
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(8, 3, generator=generator)
        views = torch.randint(0, 2, (8,), generator=generator) if seed else torch.zeros(8, dtype=torch.long)
        bank.update(tokens, views)
        for view in (0, 1):
            members = [token for token, v in zip(tokens, views, strict=True) if v == view]
            if members:
                mean = sum(members) / len(members)
                expected[view] = 0.8 * mean + 0.2 * expected[view] if view in expected else mean
    torch.testing.assert_close(bank.prototypes, torch.stack([expected[0], expected[1]]))


def test_the_bank_carries_no_gradient_and_is_saved_with_the_model():
    bank = MemoryBank(num_views=2, dim=3, momentum=0.8)
    bank.update(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 0, 1]))
    assert not bank.prototypes.requires_grad
    copy = MemoryBank(num_views=2, dim=3, momentum=0.8)
    copy.load_state_dict(bank.state_dict())
    assert torch.equal(copy.prototypes, bank.prototypes)
    assert copy.seen.all()
