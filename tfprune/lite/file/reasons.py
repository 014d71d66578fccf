"""What an error of Keras, TensorFlow or LiteRT says, in one line for a message."""

import re

LONGEST = 300
# Keras prints the cause in bold between the name of the layer and the list of its arguments.
FRAMED = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """The cause that an error names, without tracebacks and frames around it, in one line that ends in a full stop."""
    text = str(error).strip() or type(error).__name__
    framed = FRAMED.search(text)
    if framed:
        text = framed[1]
    elif text.startswith("in user code:"):  # TensorFlow puts a traceback before it
        text = text.splitlines()[-1]
    elif " error: " in text:  # the converter puts the place in the source before what it says, and notes behind
        text = text.split(" error: ", 1)[1].splitlines()[0].rsplit("): ", 1)[-1]
    text = " ".join(text.split())
    return (text if len(text) <= LONGEST else text[:LONGEST] + " ...").rstrip(". ") + "."
