"""Classes of models and layers that are no part of Keras; imported only where Keras is there."""

from __future__ import annotations

import keras
from keras import layers

register = keras.saving.register_keras_serializable("zoo")


@register
class Branches(keras.Model):
    """A model with layers in attributes, lists, dicts, and twice under other names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.zed = layers.Dense(3, name="zed")
        self.block = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
        self.alias = self.block
        self._private = layers.Dense(3, use_bias=False, name="hidden_away")
        self.towers = [layers.Dense(3, name=f"tower_{n}") for n in range(3)]
        self.towers.append(self.towers[0])
        self.named = {"b": layers.LayerNormalization(), "a": layers.Dense(3)}
        self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

    def call(self, x):
        x = self.zed(self.block(x)) * self.scale
        for tower in self.towers:
            x = tower(x)
        return self._private(self.named["a"](self.named["b"](x)))


@register
class DeepLists(keras.Model):
    """A model whose layers are in lists in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rows = [[layers.Dense(2), layers.Dense(2)], [layers.Dense(2)]]

    def call(self, x):
        for row in self.rows:
            for layer in row:
                x = layer(x)
        return x


@register
class Odds(layers.Layer):
    """A layer with variables of dtypes that no layer of Keras has."""

    def __init__(self, dtypes, **kwargs):
        super().__init__(**kwargs)
        self.dtypes = dtypes

    def get_config(self):
        return {**super().get_config(), "dtypes": self.dtypes}

    def build(self, shape):
        for dtype in self.dtypes:
            self.add_weight(
                shape=(2, 3),
                dtype=dtype,
                initializer="zeros",
                trainable=dtype == "float64",
                autocast=False,
                name=dtype,
            )
        self.add_weight(shape=(), initializer="ones", name="scalar")
        self.add_weight(shape=(0, 4), initializer="zeros", name="nothing")

    def call(self, x):
        return x


@register
class OwnKeys(layers.Layer):
    """A layer that names its variables itself, one of them as if in a group."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), name="w")
        self.b = self.add_weight(shape=(2,), name="b")

    def call(self, x):
        return x @ self.w + self.b

    def save_own_variables(self, store):
        store["matrix"] = keras.ops.convert_to_numpy(self.w)
        store["inner/offset"] = keras.ops.convert_to_numpy(self.b)

    def load_own_variables(self, store):
        self.w.assign(store["matrix"])
        self.b.assign(store["inner/offset"])
