# The kit as an application uses it.
defmodule Tiebeam.TestKitTest do
  use ExUnit.Case, async: true

  import Tiebeam.Test

  alias Support.RustPeer
  alias Tiebeam.Test.Node

  # On a machine that is busy.
  @soon [within: 60_000]

  defp seen(nodes), do: [on: nodes] ++ @soon

  test "a cluster is cut in two and heals, and its names with it" do
    [a, b, c] = nodes = start_cluster(3, name: Kit, options: [voters: :all])
    pid = start_child(c, %{id: Agent, start: {Agent, :start_link, [Map, :new, []]}})
    :ok = call(c, Tiebeam.Registry, :register, [Kit, "one", pid])
    assert assert_registered(Kit, "one", seen(nodes)) == pid

    partition(a, [b, c])
    assert_members(Kit, [b, c], seen([b, c]))
    assert_members(Kit, [a], seen(a))
    refute_registered(Kit, "one", seen(a))
    assert assert_leader(Kit, seen([b, c])) in [b.node, c.node]
    # It is cut off, and can be asked all the same.
    assert call(a, :erlang, :nodes, []) == []

    heal(nodes)
    assert_members(Kit, nodes, seen(nodes))
    assert assert_registered(Kit, "one", seen(nodes)) == pid
    assert_leader(Kit, seen(nodes))
  end

  test "nodes are killed, stopped and frozen" do
    [a, b, c] = start_cluster(3, name: Kit)
    kill_node(c)
    assert_members(Kit, [a, b], seen([a, b]))

    d = start_node(name: c.node, children: [{Tiebeam, name: Kit, profile: :fast, join: [a.node]}])
    assert_members(Kit, [a, b, d], seen([a, b, d]))

    stop_node(d)
    eventually(fn -> call(a, Tiebeam, :member, [Kit, d.node]).status == :left end, @soon)

    pause_node(b)
    eventually(fn -> call(a, Tiebeam, :member, [Kit, b.node]).status != :alive end, @soon)
    resume_node(b)
    assert_members(Kit, [a, b], seen([a, b]))
    # The test ends while it stands still.
    pause_node(b)
  end

  test "Rust nodes are members, and are parted from BEAM nodes" do
    [a, rust] = nodes = start_cluster([:beam, :rust], name: Kit, program: RustPeer.program())
    assert %Node{kind: :rust} = rust
    partition([a], [rust])
    assert_members(Kit, [a], seen(a))
    heal(nodes)
    assert_members(Kit, nodes, seen(nodes))
    assert_raise ArgumentError, ~r/are Rust nodes, which the kit cannot part/, fn -> partition(rust, rust) end

    kill_node(rust)
    assert_members(Kit, [a], seen(a))

    again = start_rust_node(program: RustPeer.program(), join: [a])
    assert_members(Kit, [a, again], seen([a, again]))
    stop_node(again)
    eventually(fn -> call(a, Tiebeam, :member, [Kit, again.node]).status == :left end, @soon)
  end

  test "a node has the environment of its applications, and what it is given beside" do
    Application.put_env(:tiebeam, :in_the_test, 1)
    on_exit(fn -> Application.delete_env(:tiebeam, :in_the_test) end)
    config = [an_application: [given: 2]]
    a = start_node(applications: [:tiebeam], config: config, env: %{"GIVEN" => "3"}, args: ["-given", "4"])
    assert call(a, Application, :get_env, [:tiebeam, :in_the_test]) == 1
    assert call(a, Application, :get_env, [:an_application, :given]) == 2
    assert call(a, System, :get_env, ["GIVEN"]) == "3"
    assert call(a, :init, :get_argument, [:given]) == {:ok, [[~c"4"]]}
    assert_raise ArgumentError, fn -> call(a, String, :to_existing_atom, ["no_such_atom_anywhere_at_all"]) end
  end

  test "what is not so is told with what is" do
    a = start_node(children: [{Tiebeam, name: Kit}])

    error = assert_raise ExUnit.AssertionError, fn -> assert_registered(Kit, "nobody", on: a, within: 50) end

    assert error.message =~ ~s(not agreed within 50 ms who has the name "nobody": ["#{a.node}": nil])

    error =
      assert_raise ExUnit.AssertionError, fn ->
        start_rust_node(
          program: System.find_executable("sh"),
          args: fn _ -> ["-c", "echo cannot; exit 3"] end
        )
      end

    assert error.message =~ ~r/^rust_\d+@127.0.0.1 ended before it was ready:\ncannot/
  end
end
