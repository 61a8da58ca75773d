"""Differentially private training: one wrapper a framework, and the statement of (epsilon, delta) they all make.

`divulge.dp.keras` (Keras 3 on TensorFlow), `divulge.dp.torch` (Opacus), `divulge.dp.jax` (jax-privacy; also Keras 3 on
JAX) and `divulge.dp.accounting` (dp-accounting). None is loaded by `import divulge`, and none loads its framework
before it is called.
"""
