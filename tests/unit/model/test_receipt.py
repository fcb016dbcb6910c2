"""Receipts map a request's items to ids."""

from ocean_core.model.receipt import Receipt


def test_without_a_layout_each_item_is_one_reading() -> None:
    assert Receipt(10, 0, 0, items=3).item_ids() == [10, 11, 12]


def test_items_of_several_readings_and_events_get_the_id_of_their_first_row() -> None:
    receipt = Receipt(10, 90, 0, items=4, layout=(1, 0, 3, 0))
    assert receipt.item_ids() == [10, 90, 11, 91]
