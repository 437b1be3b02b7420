"""What every model promises: each model is enrolled once, each property is one file.

`registry` holds the models, `rows` what they are fitted to, `places` the array libraries; a
property is a test with the argument `model`. A test file elsewhere puts models of its own through
every property::

    from contract.properties import *
    from contract.registry import Model

    MODELS = [Model("pls", PLS)]
"""
