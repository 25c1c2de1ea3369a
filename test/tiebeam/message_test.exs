defmodule Tiebeam.MessageTest do
  use ExUnit.Case, async: true

  defmodule Place do
    use Tiebeam.Message, tag: "orders.place", version: 3, from: 1

    @impl true
    def migrate(1, item), do: {:ok, {item, 1}}
    def migrate(2, {item, count}) when is_integer(count), do: {:ok, %{item: item, count: count}}
    def migrate(2, other), do: {:error, {:not_an_order, other}}
  end

  defmodule Cancel do
    use Tiebeam.Message, tag: "orders.cancel", version: 0
  end

  test "versions that are none are no versions" do
    for options <- [[version: -1], [version: 1, from: 2], [version: 1, from: -1]] do
      code = quote do: use(Tiebeam.Message, [tag: "t"] ++ unquote(options))
      module = Module.concat(__MODULE__, "Wrong#{System.unique_integer([:positive])}")
      assert_raise ArgumentError, fn -> Module.create(module, code, Macro.Env.location(__ENV__)) end
    end
  end

  # The terms are those of native/tiebeam_node/src/message.rs.
  test "an envelope is the term that Rust nodes know" do
    assert Place.wrap(%{item: "tea"}) == {:"$tiebeam_message", "orders.place", 3, %{item: "tea"}}
    assert Place.open(Place.wrap(:payload)) == {:ok, :payload}
    assert Cancel.open(Cancel.wrap("tea")) == {:ok, "tea"}
  end

  test "older versions are lifted step by step" do
    assert Place.open({:"$tiebeam_message", "orders.place", 1, "tea"}) == {:ok, %{item: "tea", count: 1}}
    assert Place.open({:"$tiebeam_message", "orders.place", 2, {"tea", 5}}) == {:ok, %{item: "tea", count: 5}}
    assert Place.open({:"$tiebeam_message", "orders.place", 2, :tea}) == {:error, {:not_an_order, :tea}}
  end

  test "what is not understood is refused with both versions" do
    refused = fn got -> {:error, {:"$tiebeam_version", {"orders.place", 3}, got}} end

    for version <- [0, 4, 1_000_000],
        do:
          assert(
            Place.open({:"$tiebeam_message", "orders.place", version, nil}) ==
              refused.({"orders.place", version})
          )

    assert Place.open(Cancel.wrap("tea")) == refused.({"orders.cancel", 0})

    for plain <- [
          :place,
          {},
          {:"$tiebeam_message", "orders.place"},
          {:"$tiebeam_message", "orders.place", "3", nil}
        ],
        do: assert(Place.open(plain) == refused.(nil))

    assert Cancel.open({:"$tiebeam_message", "orders.cancel", 1, nil}) ==
             {:error, {:"$tiebeam_version", {"orders.cancel", 0}, {"orders.cancel", 1}}}
  end
end
