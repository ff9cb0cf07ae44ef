"""What becomes of groups, case by case."""

from __future__ import annotations

import pytest

from ckptkit import EditError
from ckptkit.formats.keras.hdf5.linkedits import Attribute, Make, Move, Remove
from ckptkit.formats.keras.hdf5.regrouping import regroup
from tests.unit.formats.trees import tree_of

LAYERS = [
    *("layers/dense/vars/0", "layers/dense/vars/1"),
    *("layers/dense_1/vars/0", "layers/dense_1/vars/1"),
    *("optimizer/vars/0", "optimizer/vars/1"),
]
EMPTY = ["layers/dropout/vars", "layers/dense/_inner/vars"]


def layers():
    attributes = {"layers/dense/vars": {"name": "first"}}
    return tree_of(LAYERS, groups=EMPTY, attributes=attributes)


def after(tree, change, **options):
    return regroup(tree, {path: change(path) for path in tree.datasets}, **options)


def test_an_object_is_renamed_with_all_that_is_empty_in_it():
    found = after(layers(), lambda path: path.replace("dense/", "head/"))
    assert found.edits == (Move("layers/dense", "layers/head"),)
    assert found.groups["layers/dense/_inner/vars"] == "layers/head/_inner/vars"
    assert found.made == ()


def test_two_objects_change_places():
    names = {"dense": "dense_1", "dense_1": "dense"}

    def change(path):
        return "/".join(names.get(part, part) for part in path.split("/"))

    found = after(layers(), change)
    assert len(found.edits) == 3
    assert all(isinstance(edit, Move) for edit in found.edits)
    assert (found.groups["layers/dense"], found.groups["layers/dense_1"]) == (
        "layers/dense_1",
        "layers/dense",
    )


def test_two_values_change_places_and_the_groups_stay():
    swap = {"layers/dense/vars/0": "layers/dense_1/vars/0"}
    swap |= {new: old for old, new in swap.items()}
    found = after(layers(), lambda path: swap.get(path, path))
    assert found.groups == {path: path for path in layers().groups}
    assert len(found.edits) == 3


def test_lone_values_change_places_and_the_groups_stay():
    tree = tree_of(["a/vars/0", "b/vars/0", "b/vars/1"])
    swap = {"a/vars/0": "b/vars/0", "b/vars/0": "a/vars/0"}
    found = after(tree, lambda path: swap.get(path, path))
    assert (found.groups, found.made) == ({path: path for path in tree.groups}, ())


def test_an_object_goes_with_its_last_variable():
    found = after(layers(), lambda path: None if "dense/" in path else path)
    assert found.edits == (Remove("layers/dense"),)
    assert "layers/dense/_inner/vars" not in found.groups
    assert "layers/dropout/vars" in found.groups


def test_an_object_stays_with_its_first_variable():
    found = after(layers(), lambda path: None if path == "layers/dense/vars/1" else path)
    assert found.edits == (Remove("layers/dense/vars/1"),)


def test_the_root_stays():
    found = after(tree_of(["a"]), lambda _: None)
    assert (found.groups, found.edits) == ({"": ""}, (Remove("a"),))


def test_an_object_moves_into_the_place_of_one_that_goes():
    def change(path):
        return None if "dense/" in path else path.replace("dense_1", "dense")

    found = after(layers(), change)
    assert found.edits == (Remove("layers/dense"), Move("layers/dense_1", "layers/dense"))


def test_new_groups_are_made_on_the_way():
    found = after(layers(), lambda path: path.replace("optimizer", "old/of/mine"))
    assert found.made == ("old", "old/of")
    assert found.edits == (Make("old"), Make("old/of"), Move("optimizer", "old/of/mine"))


def test_a_group_moves_into_itself():
    found = after(tree_of(["a/x", "a/y"]), lambda path: path.replace("a/", "a/b/"))
    assert (found.groups, found.made) == ({"": "", "a": "a/b"}, ("a",))
    assert found.edits == (Move("a", "~0"), Make("a"), Move("~0", "a/b"))


def test_a_name_for_the_time_being_is_a_free_one():
    found = after(tree_of(["a/x", "~0", "~1"]), lambda path: path.replace("a/", "a/b/"))
    assert found.edits[0] == Move("a", "~2")


def test_a_name_that_comes_twice_changes_twice():
    tree = tree_of(["w/first/m/first/kernel", "w/first/m/first/bias", "w/other/x"])
    found = after(tree, lambda path: path.replace("first", "head"))
    assert found.groups["w/first/m/first"] == "w/head/m/head"
    assert {*found.edits} == {
        Move("w/first", "w/head"),
        Move("w/head/m/first", "w/head/m/head"),
    } or {*found.edits} == {
        Move("w/first/m/first", "w/first/m/head"),
        Move("w/first", "w/head"),
    }


def test_contents_that_join_another_group_leave_none_behind():
    tree = tree_of(["a/x", "b/y"], attributes={"a": {"name": "a"}, "b": {"name": "b"}})
    found = after(tree, lambda path: path.replace("a/", "b/"))
    assert found.groups == {"": "", "b": "b"}
    assert found.edits == (Move("a/x", "b/x"), Remove("a"))


def test_a_group_that_lost_all_to_several_stays():
    found = after(tree_of(["a/x", "a/y"]), {"a/x": "b/x", "a/y": "c/d/y"}.get)
    assert (found.groups, found.made) == ({"": "", "a": "a"}, ("b", "c", "c/d"))


def test_a_dataset_takes_the_place_of_its_group():
    found = after(tree_of(["a/x"]), lambda _: "a")
    assert (found.groups, found.datasets) == ({"": ""}, {"a/x": "a"})
    assert found.edits == (Move("a/x", "~0"), Remove("a"), Move("~0", "a"))


def test_groups_of_new_datasets_are_made_or_kept():
    found = regroup(tree_of(["a/x", "b/y"]), {"a/x": None, "b/y": "b/y"}, added=["a/x", "c/d/z"])
    assert (found.groups["a"], found.made) == ("a", ("c", "c/d"))
    assert found.edits == (Remove("a/x"), Make("c"), Make("c/d"))


def test_attributes_are_those_that_change():
    found = regroup(
        layers(),
        {path: path.replace("dense/", "head/") for path in LAYERS},
        attributes={
            "layers/head/vars": {"name": "second", "gone": None},
            "layers/dense_1/vars": {"name": "new"},
            "layers/dropout/vars": {"nothing": None},
        },
    )
    assert found.attributes == {
        "layers/head/vars": {"name": "second"},
        "layers/dense_1/vars": {"name": "new"},
    }
    assert found.edits[1:] == (
        Attribute("layers/head/vars", "name", "second"),
        Attribute("layers/dense_1/vars", "name", "new"),
    )
    same = {"layers/dense/vars": {"name": "first"}}
    assert after(layers(), lambda path: path, attributes=same).attributes == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a/x": "b/y"}, "two datasets would be 'b/y': 'a/x' and 'b/y'"),
        ({"a/x": "b"}, "'b' would be a dataset and, for 'b/y', a group"),
        ({"a/x": "b/y/z"}, "'b/y' would be a dataset and, for 'b/y/z', a group"),
        ({"a/x": "e"}, "where group 'e' is"),
        ({"a/x": ""}, "no path of a dataset"),
        ({"a/x": "/x"}, "no path of a dataset"),
        ({"a/x": "a//x"}, "no path of a dataset"),
        ({"a/x": "a/x/"}, "no path of a dataset"),
        ({"a/x": "a/../x"}, "no path of a dataset"),
        ({"a/x": "./x"}, "no path of a dataset"),
        ({"a/x": "a/x\0"}, "no path of a dataset"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    tree = tree_of(["a/x", "b/y"], groups=["e"])
    with pytest.raises(EditError, match=message):
        after(tree, lambda path: change.get(path, path))


def test_new_datasets_have_places_of_their_own():
    tree = tree_of(["a/x"])
    for added in (["a/x"], ["b", "b"], ["a/x/y"], ["a"]):
        with pytest.raises(EditError):
            after(tree, lambda path: path, added=added)


def test_attributes_of_nothing_are_refused():
    with pytest.raises(EditError, match="nothing is left at 'layers/dense/vars'"):
        after(
            layers(),
            lambda path: path.replace("dense/", "head/"),
            attributes={"layers/dense/vars": {"name": "x"}},
        )


def test_a_group_with_two_names_is_left_alone():
    tree = tree_of(["a/x", "b/x", "c"])
    one = tree.groups["a"].address
    other = tree.groups["b"]
    tree.groups["b"] = type(other)(other.path, other.links, one, other.attributes)
    assert after(tree, lambda path: path.replace("c", "d")).edits == (Move("c", "d"),)
    assert after(tree, lambda path: path.replace("a/", "e/")).edits == (Move("a", "e"),)
    for old, new in (("a/x", "a/y"), ("b/x", "y"), ("c", "a/c"), ("c", "b/d/c")):
        with pytest.raises(EditError, match="another name in the file"):
            after(tree, lambda path, old=old, new=new: new if path == old else path)
