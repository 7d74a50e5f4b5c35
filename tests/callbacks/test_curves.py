from lightning_jv5.callbacks.curves import Curve, draw_curves


def test_axes_are_labelled_and_ticks_are_the_dims() -> None:
    figure = draw_curves({"small": [Curve("before", [32, 64, 96], [0.1, 0.2, 0.3])]}, title="Sizes", metric="ndcg@10")
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("coordinates kept", "ndcg@10")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32", "64", "96"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["before"]


def test_many_curves_have_their_legend_beside_the_panels() -> None:
    curves = [Curve(str(number), [8, 16], [0.0, number]) for number in range(4)]
    figure = draw_curves({"one": curves, "two": curves}, title="Sizes", metric="ndcg@10")
    assert [axes.get_legend() for axes in figure.axes] == [None, None]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2", "3"]


def test_panels_have_measures_of_their_own_and_at_most_three_are_beside_each_other() -> None:
    names = ["a", "b", "c", "d", "e"]
    panels = {name: [Curve("", [8, 16], [0.1, 0.2])] for name in names}
    figure = draw_curves(panels, title="Sizes", metric={name: f"{name}@10" for name in names}, size="bytes")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_ylabel() for axes in shown] == [f"{name}@10" for name in names]
    assert {axes.get_xlabel() for axes in shown} == {"bytes"}
    assert shown[0].get_gridspec().ncols == 3
