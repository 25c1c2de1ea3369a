defmodule Support.Case do
  @moduledoc """
  The base of the conformance tests: one module per kind of node under test.

      for kind <- Support.Target.kinds() do
        defmodule Support.Target.module(Conformance.SignalsTest, kind) do
          use Support.Case, kind: kind

  gives every test `kind` and, unless `start: false`, a node `u` of that kind, shared by the module and connected to the tests'
  own node. A test that stops or breaks U starts one of its own.
  """
  use ExUnit.CaseTemplate

  using opts do
    quote do
      import Support.Eventually
      import Support.Terms
      alias Support.{Beam, Net, OsProcess, RawPeer, Target}

      @kind unquote(opts[:kind])
      @moduletag kind: @kind

      setup_all do
        Support.FailureLog.enter(__MODULE__)
        if unquote(Keyword.get(opts, :start, true)), do: %{u: Target.start(@kind)}, else: :ok
      end
    end
  end

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end
end
