"""How much is looked at for one more call in a block does not grow with the calls that are in it."""

from tests.recording.test_brackets import Bracket, Room, call_in


def test_a_long_block_does_not_slow_the_writer_down():
    looked_at = []

    class Counted(dict):
        def values(self):
            looked_at.append(1)
            return super().values()

    room, bracket = Room(False), Bracket()
    for number in range(1000):
        room.tell(call_in(bracket, response_id=f"r{number}", after=number))
        bracket.calls[-1].told = Counted(bracket.calls[-1].told)
    looked_at.clear()
    room.tell(call_in(bracket, response_id="r", after=1000))
    assert len(looked_at) <= 800
