# global: four nodes, BEAM and Rust mixed, that dial each other at once.
defmodule Conformance.GlobalJoinTest do
  use ExUnit.Case, async: true
  alias Support.{Joining, Target}

  # `TIEBEAM_JOIN_ROUNDS` asks for more.
  @rounds "TIEBEAM_JOIN_ROUNDS" |> System.get_env("20") |> String.to_integer()

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  @tag timeout: 60_000 + @rounds * 60_000
  test "check 59: #{@rounds} rounds of four nodes that dial each other at once end in one mesh with one table" do
    Joining.rounds(@rounds, fn random ->
      Enum.map_reduce(1..4, random, fn _, random -> Joining.one_of(Target.kinds(), random) end)
    end)
  end
end
