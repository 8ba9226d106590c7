"""Strategies for damaged bytes: cut, doubled, overwritten, or with bytes inserted."""

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, originals: st.SearchStrategy[bytes], tokens: list[bytes]) -> bytes:
    """One of `originals` with some damage.

    Args:
        draw: Given by hypothesis.
        originals: Undamaged bytes.
        tokens: Bytes to insert, besides arbitrary ones.
    """
    data = draw(originals)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(
            st.integers(begin, min(len(data), begin + draw(st.sampled_from([0, 1, 8, 200]))))
        )
        between = draw(st.just(b"") | st.sampled_from(tokens) | st.binary(max_size=4))
        again = data[begin:end] if draw(st.booleans()) else b""
        data = data[:begin] + again + between + again + data[end:]
    return data
